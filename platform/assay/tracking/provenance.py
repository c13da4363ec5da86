"""What a run must carry to be explained and repeated: code, data, config, environment, machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_string
from pathlib import Path
from typing import Any

from assay.config.experiment import ExperimentConfig
from assay.config.params import read_yaml
from assay.config.schema import digest, resolved
from assay.data.dataset import Dataset
from assay.errors import InputError
from assay.files import parse_json, read_json
from assay.git import changes, commit_of
from assay.inputs import Inputs, libraries
from assay.redaction import redact, redact_known
from assay.state import PACKAGE

PREFIX = "assay."
KEPT = f"{PREFIX}kept_metrics"
"""The tag of a finished run with the metrics of the weights that were kept; its newest points may be of later ones."""
WEIGHTS_SHA256 = f"{PREFIX}weights_sha256"
"""The tag of a finished run with the hash of the weights that were kept."""
NO_CHANGES = hashlib.sha256().hexdigest()
"""The hash of no uncommitted changes."""
REQUIRED = (
    "experiment",
    "commit",
    "dirty",
    "diff_sha256",
    "dataset",
    "dataset_hash",
    "classes_sha256",
    "config_sha256",
    "code_sha256",
    "files_sha256",
    "seed",
    "environment_sha256",
    "python",
    "world_size",
    "threads",
    "device",
    "libraries",
    "inputs_sha256",
    "fingerprint",
)
"""The tags without which a run cannot be registered."""

REFUSED = {
    "dataset_hash": "the dataset",
    "code_sha256": "the training code",
    "files_sha256": "a file that the configuration names",
    "inputs_sha256": "the configuration",
}
"""What a run must have in common with the session that continues it, as have its libraries: the weights follow from
it, and the fingerprint is made of it.
"""
FLAGGED = {
    "world_size": "workers",
    "threads": "threads",
    "device": "device",
    "processor": "processor",
    "compiled": "torch.compile",
    "platform": "platform",
    "python": "Python",
    "environment_sha256": "installed packages",
    "commit": "commit",
    "diff_sha256": "uncommitted changes",
}
"""What each session of a run records for itself. Where sessions differ in it, the run says so: sums may have been
rounded differently.
"""

SOURCE = {".py", ".yaml", ".yml", ".toml"}
"""Suffixes of new files that are carried as text."""
HASHED_BYTES = 2**20
"""The largest untracked file whose content is hashed."""
HASHED_FILES = 100
"""Of untracked files that are no source code, the most that are named and hashed; more are taken for data."""


@dataclass(frozen=True)
class Provenance:
    """Tags by name (without prefix), and the texts that are kept with them. `kind`: run, search or trial.

    `card` is the dataset version's, as JSON. `inputs` are for the processes that train, see `Inputs.plain`.
    """

    tags: Mapping[str, str]
    config: Mapping[str, Any]
    diff: str
    packages: Mapping[str, str] = field(default_factory=dict)
    kind: str = "run"
    card: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CodeState:
    """The code that a run follows from. `diff` is without secrets; `diff_sha256` is of the diff with them."""

    commit: str
    diff: str
    diff_sha256: str
    redacted: bool


def collect(
    root: Path, experiment: str, config: ExperimentConfig, dataset: Dataset, machine: Mapping[str, str]
) -> Provenance:
    """Everything of a run that is about to start.

    Args:
        machine: `world_size`, `threads` and `device`.

    Raises:
        InputError: the project is not a git repository, or has no commit.
    """
    plain = redact_known(resolved(config))
    state, packages = code_state(root), installed()
    here = Inputs.here(root, config.task.name, config.task.files)
    inputs = inputs_sha256(config, dataset.hash, here)
    tags = {
        "experiment": experiment,
        "commit": state.commit,
        "dirty": str(bool(state.diff)).lower(),
        "diff_redacted": str(state.redacted).lower(),
        "diff_sha256": state.diff_sha256,
        "dataset": config.data,
        "dataset_hash": dataset.hash,
        "classes_sha256": digest(dataset.card.classes),
        "config_sha256": digest(plain),
        "code_sha256": here.code,
        "seed": str(config.seed),
        "environment_sha256": digest(packages),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "files_sha256": digest(dict(here.files)),
        "libraries": json.dumps(dict(here.libraries)),
        "inputs_sha256": inputs,
        "fingerprint": fingerprint(inputs, here.libraries),
        **machine,
    }
    return Provenance(
        tags, plain, state.diff, packages, card=dataset.card.model_dump_json(indent=1), inputs=here.plain()
    )


def inputs_sha256(config: ExperimentConfig, dataset_hash: str, here: Inputs) -> str:
    """One hash of what the user gave: config (without the gate, which changes no weights), data, training code, and
    the files that the config names.
    """
    plain = resolved(config)
    plain.pop("gate")
    return digest({"config": plain, "dataset": dataset_hash, "code": here.code, "files": dict(here.files)})


def fingerprint(inputs: str, versions: Mapping[str, str]) -> str:
    """One hash of all that the weights follow from: the inputs, and the libraries that do the arithmetic."""
    return digest({"inputs": inputs, "libraries": dict(versions)})


def other_libraries(tags: Mapping[str, str]) -> list[str]:
    """How the libraries of a recorded run differ from those here, such as `torch 2.13.0, here 2.14.1`."""
    tag = f"{PREFIX}libraries"
    then, here = parse_json(tags.get(tag, "{}"), f"the run's tag {tag}", "train again with --new"), libraries()
    return [
        f"{name} {then.get(name, 'missing')}, here {here.get(name, 'missing')}"
        for name in sorted(then | here)
        if then.get(name) != here.get(name)
    ]


def refusal(recorded: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """Why a run cannot be continued with what is here; None if it can: exactly if the fingerprints are equal.

    Args:
        recorded: the run's tags, with their prefix.
        here: the tags of a run that would begin here, without it.
    """
    if recorded.get(f"{PREFIX}fingerprint") == here["fingerprint"]:
        return None
    for name, what in REFUSED.items():
        before = recorded.get(f"{PREFIX}{name}", "not recorded")
        if before != here[name] and (name != "inputs_sha256" or not other_libraries(recorded)):
            fix = "restore it, or start a new run without --resume"
            return f"{what} has changed since the run began ({name} was {before}, is {here[name]}): {fix}"
    changed = "; ".join(other_libraries(recorded))
    return (
        f"the libraries have changed since the run began ({changed}): "
        "install the old ones, or start a new run without --resume"
    )


def missing(tags: Mapping[str, str]) -> list[str]:
    """The required tags that a run lacks."""
    return [name for name in REQUIRED if not tags.get(PREFIX + name)]


def code_state(root: Path) -> CodeState:
    """The commit and the difference from it; in a job, which runs without git, as its package records them."""
    packaged = _packaged(root)
    if packaged is not None:
        return packaged
    commit, diff = git_state(root)
    shown = redact(diff)
    return CodeState(commit, shown, hashlib.sha256(diff.encode()).hexdigest(), shown != diff)


def _packaged(root: Path) -> CodeState | None:
    """What the package of a job records; None in a repository, and if there is no package.

    Git is not asked: the folder of a job may be inside a repository that is not the job's.
    """
    if (root / ".git").exists() or not (root / PACKAGE).is_file():
        return None
    names = ("commit", "diff", "diff_sha256", "redacted")
    record = read_json(root / PACKAGE, "submit the job again", names)
    return CodeState(*(record[name] for name in names))


def git_state(root: Path) -> tuple[str, str]:
    """The commit, and the difference of the working tree from it: tracked files, and new ones that are not ignored.

    `dvc.lock` and the raw data that `params.yaml` names are left out: the dataset has a hash of its own.
    """
    commit = git_commit(root)
    part = (".", *(f":(exclude,literal){name}" for name in ("dvc.lock", *_raw_data(root))))
    diff, new = changes(root, *part)
    text = diff + _new_files(root, new)
    return commit, text.encode(errors="surrogateescape").decode(errors="replace")  # names and text in any encoding


def _raw_data(root: Path) -> list[str]:
    """The folders inside the project that datasets are made from. Faults of `params.yaml` are found when it is used."""
    try:
        datasets = read_yaml(root / "params.yaml")["datasets"]
        paths = [block["source"]["path"] for block in datasets.values() if "path" in block["source"]]
        folders = [(root / path).resolve() for path in paths]
    except (InputError, LookupError, TypeError, AttributeError, ValueError, RuntimeError):
        return []
    inside = [folder.relative_to(root.resolve()) for folder in folders if folder.is_relative_to(root.resolve())]
    return sorted({folder.as_posix() for folder in inside} - {"."})


def _new_files(root: Path, names: Sequence[str]) -> str:
    """Untracked files: source code as text, a few others each with its hash or size, many others as their number."""
    others = [name for name in names if Path(name).suffix not in SOURCE]
    if len(others) <= HASHED_FILES:
        return "".join(_new_file(root, name) for name in names)
    source = [name for name in names if Path(name).suffix in SOURCE]
    rest = f"+++ {len(others)} other new files, such as {others[0]}\n"
    return "".join(_new_file(root, name) for name in source) + rest


def git_commit(root: Path) -> str:
    """The commit that is checked out, or that a job's package was made from. Raises `InputError` if none exists."""
    packaged = _packaged(root)
    if packaged is not None:
        return packaged.commit
    return commit_of(root)


def _new_file(root: Path, name: str) -> str:
    """An untracked file: its text if it is source code, its hash if it is small, else its size: it may be raw data."""
    path = root / name
    if not path.is_file():
        return f"+++ {name}: no regular file\n"
    if path.suffix in SOURCE and path.stat().st_size < 200_000:
        return f"+++ {name}\n{path.read_text(errors='replace')}\n"
    if path.stat().st_size > HASHED_BYTES:
        return f"+++ {name}: {path.stat().st_size} bytes\n"
    with path.open("rb") as file:
        return f"+++ {name}: sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}\n"


def installed() -> dict[str, str]:
    """Every installed package and its version; of two copies the one that is imported."""
    found: dict[str, str] = {}
    for package in importlib.metadata.distributions():
        name, version = _name_and_version(package)
        if name and version:  # not what an interrupted installation left behind
            found.setdefault(name.lower(), version)
    return dict(sorted(found.items()))


def _name_and_version(package: importlib.metadata.Distribution) -> tuple[str | None, str | None]:
    """From the headers of its metadata. Parsing them all takes a third of a second of each training's start."""
    text = package.read_text("METADATA") or package.read_text("PKG-INFO") or package.read_text("") or ""
    headers = text.partition("\n\n")[0]
    name, version = (re.search(rf"^{field}: *(\S+) *$", headers, re.MULTILINE) for field in ("Name", "Version"))
    if name and version:
        return name[1], version[1]
    parsed = message_from_string(headers)
    return parsed["Name"], parsed["Version"]
