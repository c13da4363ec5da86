"""From a line of the command line to a job on the cluster: everything that can be wrong is found before the upload."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.config.experiment import ExperimentConfig, override
from assay.config.params import Params, load_params
from assay.config.schema import digest
from assay.data.version import recorded_hash
from assay.errors import InputError
from assay.inputs import Inputs
from assay.log import Log
from assay.program import SILENCE
from assay.redaction import redact
from assay.settings import Settings
from assay.storage.dataset_fetch import missing_in_remote
from assay.submit.package import Package, pack
from assay.submit.ray_jobs import STOP_SECONDS, Cluster, NewJob
from assay.tracking.provenance import fingerprint, inputs_sha256
from assay.tune import objectives
from assay.tune.space import bound
from assay.usecases.helpers.places import require_repository
from assay.usecases.train import TrainRequest
from assay.workers.ray_environment import RAY_ENVIRONMENT

VERBS = ("train", "tune", "evaluate", "register")
"""What a job can do: what reads the project and the tracking store, and leaves its results in the latter."""


@dataclass(frozen=True)
class Command:
    """A line of the command line: its words, and the values that the verb would get."""

    verb: str
    options: Mapping[str, Any]
    words: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The experiment, search or run that it names."""
        return str(self.options.get("experiment") or self.options.get("search") or self.options.get("run"))

    @property
    def line(self) -> str:
        return shlex.join(self.words)


@dataclass(frozen=True)
class CheckedCommand:
    """A command that can run.

    Attributes:
        config: of the experiment that it trains.
        same: equal for commands that would do the same work.
        fingerprint: of the run that a training creates or finds.
    """

    config: ExperimentConfig | None = None
    same: str | None = None
    fingerprint: str | None = None


def submit(command: Command, settings: Settings, cluster: Cluster, log: Log, wait: bool = False) -> str:
    """Check a command, pack the project, hand both to the cluster; returns the job's id. The job starts by itself.

    Raises:
        InputError: the command, the project, its data or the cluster is wrong; nothing was started.
    """
    checked = check_command(command, settings)
    cluster.check()
    package = pack(settings.root, checked.config.task.files if checked.config else ())
    for name in package.keys:
        log(f"left out of the package because it looks like a key: {name}")
    return start(command, checked, package, cluster, log, wait)


def start(command: Command, checked: CheckedCommand, package: Package, cluster: Cluster, log: Log, wait: bool) -> str:
    """Upload what the cluster does not have yet, and start the job; returns its id."""
    sent = [cluster.upload(archive) for archive in (package.project, package.code)]
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", command.subject)[:40]
    job_id = f"assay-{command.verb}-{name}-{package.commit[:7]}-{secrets.token_hex(3)}"
    job = NewJob(
        job_id=job_id,
        entrypoint=f"exec python -m assay.cli.in_job {command.line}",
        command=command.line,
        key=key_of(command, checked, package),
        working_dir=package.project.uri,
        modules=package.code.uri,
        environment={**environment(), **({"ASSAY_WAIT": "1"} if wait else {})},
    )
    cluster.submit(job)
    what = f"commit {package.commit[:12]}" + (" with changes" if package.dirty else "")
    size = f"{package.size / 1e6:.1f} MB" if any(sent) else "already there"
    log(f"job {job_id}: {what}, package {size}")
    return job_id


def environment() -> dict[str, str]:
    """The settings that a job's processes get on every node. No secrets: anybody who sees the cluster sees them.

    A job cannot set what Ray starts the nodes with; addresses and secrets are in the nodes' own environment.
    """
    for_jobs = {
        name: value for name, value in RAY_ENVIRONMENT.items() if not name.startswith(("RAY_worker", "RAY_enable"))
    }
    return {**SILENCE, **for_jobs, "ASSAY_RAY_ADDRESS": "auto", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}


def key_of(command: Command, checked: CheckedCommand, package: Package) -> str:
    """Equal for commands that would do the same work: the same inputs, else the same words on the same package."""
    if command.options.get("new"):
        return secrets.token_hex(16)
    return digest({"same": checked.same} if checked.same else {"words": list(command.words), "package": package.sha256})


def check_command(command: Command, settings: Settings) -> CheckedCommand:
    """A command that is ready to run. Raises `InputError` for everything that can be found wrong here."""
    if command.verb not in VERBS:
        raise InputError(f"`assay {command.verb}` runs here, not on a cluster; these can be jobs: {', '.join(VERBS)}")
    require_no_secret(command)
    require_repository(settings.root)
    if command.verb == "train":
        return _training(command, settings)
    if command.verb == "tune":
        return _search(command, settings)
    return CheckedCommand()


def _training(command: Command, settings: Settings) -> CheckedCommand:
    root, params, name = settings.root, load_params(settings.params_file), command.subject
    config = params.experiment(name)
    if command.options.get("preset"):
        config = params.preset(name, command.options["preset"])
    config = override(config, list(command.options["assignments"]))
    version = _require_data(root, config.data)
    if resumed := command.options.get("resume"):
        return CheckedCommand(config, digest({"resume": resumed}))
    here = Inputs.here(root, config.task.name, config.task.files)
    same = fingerprint(inputs_sha256(config, version, here), here.libraries)
    return CheckedCommand(config, digest({"experiment": name, "fingerprint": same}), same)


def _search(command: Command, settings: Settings) -> CheckedCommand:
    if command.options.get("apply") or command.options.get("candidates"):
        raise InputError("--apply and --candidates change this machine's params.yaml: leave them out of a job")
    params: Params = load_params(settings.params_file)
    config = params.search(command.subject)
    space, experiment = bound(command.subject, config, params.experiment(config.experiment))
    objectives.check(command.subject, config, space, experiment)
    _require_data(settings.root, experiment.data)
    return CheckedCommand(experiment)


def _require_data(root: Path, name: str) -> str:
    """The recorded version of a dataset. Raises `InputError` if the cluster's nodes cannot fetch it."""
    version = recorded_hash(root, name)
    if version is None:
        raise InputError(f"dataset {name!r} has no recorded version: run `dvc repro data@{name}`")
    missing = missing_in_remote(root, name)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"dataset {name!r}: the cluster cannot fetch it: {missing[0]}{more} is not in the DVC remote: "
            f"run `dvc push data@{name}`"
        )
    return version


def require_no_secret(command: Command) -> None:
    """Refuse a command that holds a secret: everybody who sees the cluster sees the commands of its jobs."""
    for word in command.words:
        if redact(word) != word:
            shown = word.partition("=")[0] if "=" in word else "a word of the command"
            raise InputError(
                f"{shown}: looks like a password or a token, and everybody who sees the cluster sees a job's command: "
                "set it in the environment of the cluster's nodes"
            )


def command_of(request: TrainRequest) -> Command:
    """The command line of a training."""
    words = ["train", request.experiment]
    words += [word for assignment in request.assignments for word in ("--set", assignment)]
    words += ["--preset", request.preset] if request.preset else []
    words += ["--resume", request.resume] if request.resume else []
    words += ["--new"] if request.new else []
    options = {"experiment": request.experiment, "assignments": request.assignments, "preset": request.preset}
    return Command("train", {**options, "resume": request.resume, "new": request.new}, tuple(words))
