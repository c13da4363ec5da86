"""`assay train`: from a name in `params.yaml` to a finished run. The composition root; the steps are elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from assay.config.experiment import ExperimentConfig, located, override, parse_experiment
from assay.config.params import load_params
from assay.config.plugin import load_task
from assay.config.schema import resolved
from assay.data.dataset import Dataset
from assay.errors import InputError, Interrupted
from assay.log import Log
from assay.settings import Settings
from assay.storage.object_store import ObjectStore
from assay.tracking.code_hash import code_sha256, libraries
from assay.tracking.provenance import PREFIX, collect, file_hashes, fingerprint, inputs_sha256, other_libraries
from assay.tracking.recorder import Recorder
from assay.tracking.runs import Claim, claim, reap, status_as_earned
from assay.tracking.tracker import RECORD, Tracker
from assay.train.folder import CHECKPOINTS, PICTURES
from assay.usecases.helpers import outputs
from assay.usecases.helpers.places import opened, project_for_nodes, require_cluster, require_repository
from assay.usecases.helpers.progress import Progress
from assay.workers.assignment import Assignment
from assay.workers.launch import launch
from assay.workers.plan import Plan, check_fit, plan
from assay.workers.ray_session import available_slots, cluster_joined

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True)
class Request:
    """What the command line asks for. `assignments` are `--set` pairs."""

    experiment: str
    assignments: tuple[str, ...] = ()
    resume: str | None = None
    new: bool = False
    preset: str | None = None

    @property
    def plain(self) -> bool:
        """True for the run that `dvc repro` makes: as params.yaml says. Only this one writes to `results/`."""
        return not (self.assignments or self.resume or self.new or self.preset)


def train(request: Request, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Train, continue or find the run of an experiment; returns its record.

    Raises:
        InputError: anything that can be known to be wrong before training.
        WorkError: the training failed; the run says FAILED and why.
        Interrupted: a signal stopped it; the run says KILLED and can be continued.
    """
    tracker = Tracker(settings)
    config = requested_config(request, settings, tracker)
    require_repository(settings.root)
    dataset = opened(config.data, settings, progress.log)
    check_fit(config, dataset.card.samples)
    local = located(config, settings.root)  # what is built; what is recorded says the same on every machine
    load_task(config.task.name)[0].check(local, dataset)
    if (done := _finished(request, config, dataset, tracker, progress.log)) is not None:
        progress.log(f"nothing to train: run {done['run_id']} has these very inputs")
        if request.resume and config == load_params(settings.params_file).experiments.get(request.experiment):
            tags = tracker.get(done["run_id"]).data.tags  # chosen by hand in place of the run that would be made
            taken = tags.get(PREFIX + "inputs_sha256") == _inputs(config, dataset, tracker)
            return written(replace(request, resume=None) if taken else request, done, settings, tracker)
        return written(request, done, settings, tracker)
    with cluster_joined(settings, progress.log):
        require_cluster(settings, searching=False)
        chosen = plan(config.train, available_slots(settings, config.train, progress.log))
        if config.train.compile and not chosen.compiled:
            progress.log("warning: train.compile: no C++ compiler here; training without torch.compile")
        provenance = collect(settings.root, request.experiment, config, dataset, chosen.machine())
        if request.resume:
            _require_same_inputs(tracker.get(request.resume).data.tags, provenance.tags)
        for run_id in reap(settings, tracker):
            progress.log(f"run {run_id} had died; marked KILLED")
        with claim(settings, tracker, request.experiment, provenance, request.resume, request.new) as held:
            if held.finished:  # by another process, while this one planned
                record = _record_of(held.run_id, tracker)
            else:
                assignment = _assignment(held, local, dataset, chosen, settings)
                record = _execute(assignment, chosen, held, config, dataset, settings, tracker, progress)
            return written(request, record, settings, tracker)


def _assignment(
    held: Claim, config: ExperimentConfig, dataset: Dataset, chosen: Plan, settings: Settings
) -> Assignment:
    """The run as plain data, for workers here or on other nodes."""
    return Assignment(
        held.run_id,
        resolved(config),
        str(dataset.folder),
        dataset.hash,
        str(held.folder),
        chosen.threads,
        chosen.gpu,
        chosen.compiled,
        project=project_for_nodes(settings),
        store=f"{settings.remote_runs}/{held.run_id}" if settings.remote_runs else "",
    )


def _finished(
    request: Request, config: ExperimentConfig, dataset: Dataset, tracker: Tracker, log: Log
) -> dict[str, Any] | None:
    """The record of the finished run with these inputs, unless another is asked for."""
    if request.new:
        return None
    run: Run | None
    if request.resume:
        run = tracker.get(request.resume)
    else:
        inputs = _inputs(config, dataset, tracker)
        run = tracker.find(request.experiment, fingerprint(inputs, libraries()))
        if run is None and (older := tracker.find_inputs(request.experiment, inputs)) is not None:
            changed = "; ".join(other_libraries(older.data.tags))
            log(f"run {older.info.run_id} has the same inputs, but was trained with other libraries ({changed})")
            log(f"training again; to take that run: assay train {request.experiment} --resume {older.info.run_id}")
    return _record_of(run.info.run_id, tracker) if run is not None and run.info.status == "FINISHED" else None


def _inputs(config: ExperimentConfig, dataset: Dataset, tracker: Tracker) -> str:
    files = file_hashes(tracker.settings.root, config)
    return inputs_sha256(config, dataset.hash, code_sha256(config.task.name), files)


def _record_of(run_id: str, tracker: Tracker) -> dict[str, Any]:
    return {**tracker.record(run_id), "trained_steps": 0}


def written(request: Request, record: dict[str, Any], settings: Settings, tracker: Tracker) -> dict[str, Any]:
    """The record, after the outputs of the DVC stage were written where the request is the one of `dvc repro`."""
    if request.plain:
        outputs.write(settings.results_folder(request.experiment), record, tracker)
    return record


def _require_same_inputs(recorded: Mapping[str, str], here: Mapping[str, str]) -> None:
    """A run goes on as what it was: its record would be false with other data or code."""
    for name, what in (("dataset_hash", "the dataset"), ("code_sha256", "the training code")):
        if recorded[PREFIX + name] != here[name]:
            found = f"{name} {recorded[PREFIX + name]}, here {here[name]}"
            mend = "go back to it, or start another run without --resume"
            raise InputError(f"--resume: {what} is not what the run began with ({found}): {mend}")
    if changed := other_libraries(recorded):
        raise InputError(
            f"--resume: the libraries are not those that the run began with ({'; '.join(changed)}): "
            "install them, or start another run without --resume"
        )


def requested_config(request: Request, settings: Settings, tracker: Tracker) -> ExperimentConfig:
    """The experiment's block with its overrides; of a resumed run, what it was started with."""
    params = load_params(settings.params_file)
    config = params.experiment(request.experiment)
    if request.preset:
        config = params.preset(request.experiment, request.preset)
    config = override(config, list(request.assignments))
    if request.resume is None:
        return config
    run = tracker.get(request.resume)
    if run.data.tags.get(PREFIX + "experiment") != request.experiment:
        raise InputError(f"--resume {request.resume}: that run is not one of experiment {request.experiment!r}")
    if request.assignments or request.preset:
        raise InputError("--resume continues a run as it was started: leave out --set, --preset and --workers")
    import json

    plain = json.loads(tracker.read_bytes(request.resume, "provenance/config.json"))
    return parse_experiment(plain, f"run {request.resume}")


def _execute(
    assignment: Assignment,
    chosen: Plan,
    held: Claim,
    config: ExperimentConfig,
    dataset: Dataset,
    settings: Settings,
    tracker: Tracker,
    progress: Progress,
) -> dict[str, Any]:
    """Train under the recorder, hand the results to MLflow, and leave the run with the status that it earned."""
    started = time.monotonic()
    recorder = Recorder(tracker, held.run_id, held.folder, progress.log)
    with status_as_earned(held.run_id, tracker):
        with progress.showing(held.folder):
            try:
                outcome = launch(assignment, chosen, settings, progress.tick, progress.log)
            finally:
                recorder.close()
                _keep_pictures(held, tracker)
        if not outcome["finished"]:
            raise Interrupted(
                f"stopped at step {outcome['steps']}, saved; the same command continues run {held.run_id}"
            )
        record = _record(held, outcome, config, dataset, time.monotonic() - started)
        _keep(held, record, tracker)
    tracker.set_status(held.run_id, "FINISHED")
    shutil.rmtree(held.folder / CHECKPOINTS)
    if assignment.store:
        ObjectStore(assignment.store).clear()  # all of it is in the tracking store now
    return record


def _record(
    held: Claim, outcome: Mapping[str, Any], config: ExperimentConfig, dataset: Dataset, seconds: float
) -> dict[str, Any]:
    return {
        "run_id": held.run_id,
        "status": "FINISHED",
        "metrics": outcome["metrics"],
        "steps": outcome["steps"],
        "trained_steps": outcome["trained_steps"],
        "seconds": round(seconds, 2),
        "weights_sha256": outcome["weights_sha256"],
        "dataset": {"name": config.data, "hash": dataset.hash},
        "resumed_from": outcome["resumed_from"],
        "facts": outcome["facts"],
    }


def _keep_pictures(held: Claim, tracker: Tracker) -> None:
    """Hand over how the training looked on its way, whatever its end."""
    for path in sorted((held.folder / PICTURES).glob("*.png")):
        tracker.log_file(held.run_id, "pictures/training", path)


def _keep(held: Claim, record: Mapping[str, Any], tracker: Tracker) -> None:
    """Hand the weights, the curves and the record to MLflow; the record last, for it says that all is there."""
    import json

    newest = max((held.folder / CHECKPOINTS).glob("step-*"))
    weights = held.folder / outputs.WEIGHTS
    shutil.copyfile(newest / "best.safetensors", weights)
    tracker.log_file(held.run_id, "weights", weights)
    weights.unlink()
    for name, content in outputs.curves(held.folder):
        tracker.log_bytes(held.run_id, f"pictures/{name}", content)
    tracker.client.set_tag(held.run_id, PREFIX + "weights_sha256", record["weights_sha256"])
    for name, value in record["facts"].items():
        tracker.client.set_tag(held.run_id, f"{PREFIX}task.{name}", value[:5000])
    tracker.log_text(held.run_id, RECORD, json.dumps(record, indent=2))
