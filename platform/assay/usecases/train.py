"""`assay train`: from a name in `params.yaml` to a finished run. It only joins the steps, which are elsewhere."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.config.experiment import ExperimentConfig, located, override
from assay.config.params import load_params
from assay.config.plugin import load_task
from assay.config.schema import resolved
from assay.data.dataset import Dataset
from assay.errors import AssayError, InputError, Interrupted, Unavailable
from assay.files import remove_folder
from assay.inputs import Inputs, libraries
from assay.log import Log
from assay.settings import Settings
from assay.storage.attempts import lease_name
from assay.storage.lease import ATTEMPTS
from assay.storage.object_store import ObjectStore
from assay.tracking import artifacts
from assay.tracking.known_store import known
from assay.tracking.provenance import (
    KEPT,
    PREFIX,
    WEIGHTS_SHA256,
    collect,
    fingerprint,
    inputs_sha256,
    other_libraries,
    refusal,
)
from assay.tracking.recorder import Recorder
from assay.tracking.remote import open_tracker
from assay.tracking.runs import Claim, claim, continuing, reap, status_as_earned
from assay.tracking.sessions import note_starts, sessions_record
from assay.tracking.tracker import Tracker
from assay.train.folder import CHECKPOINTS, PICTURES
from assay.usecases.helpers.places import (
    open_or_fetch_dataset,
    require_cluster,
    require_repository,
)
from assay.usecases.helpers.results import ExperimentResults, write_run
from assay.usecases.helpers.stage import changed, runs_as_stage
from assay.usecases.helpers.trained import open_training_dataset, recorded_config
from assay.usecases.helpers.training_progress import TrainingProgress
from assay.workers.assignment import Assignment
from assay.workers.launch import launch
from assay.workers.plan import Plan, check_fit, plan
from assay.workers.ray_session import available_slots, cluster_joined

if TYPE_CHECKING:
    from assay.tracking.run import Run


@dataclass(frozen=True)
class TrainRequest:
    """What to train. `assignments` are `--set` pairs."""

    experiment: str
    assignments: tuple[str, ...] = ()
    resume: str | None = None
    new: bool = False
    preset: str | None = None

    @property
    def plain(self) -> bool:
        """Whether this is what `dvc repro` runs: params.yaml without changes. Only then `results/` is written."""
        return not (self.assignments or self.resume or self.new or self.preset)


def train(request: TrainRequest, settings: Settings, progress: TrainingProgress) -> dict[str, Any]:
    """Train, continue or find the run of an experiment; returns its record.

    Raises:
        InputError: anything that can be known to be wrong before training.
        WorkError: the training failed; the run has the status FAILED and the reason.
        Interrupted: a signal stopped it; the run has the status KILLED and can be continued.
    """
    tracker = known(open_tracker(settings))
    config = requested_config(request, settings, tracker)
    require_repository(settings.root)
    if request.resume:
        dataset = open_training_dataset(tracker.get(request.resume), settings, progress.log)
    else:
        dataset = open_or_fetch_dataset(config.data, settings, progress.log)
    check_fit(config, dataset.card.samples)
    local = located(config, settings.root)  # with the paths of this machine, which are not recorded
    load_task(config.task.name)[0].check(local, dataset)
    if (done := _find_finished(request, config, dataset, tracker, progress.log)) is not None:
        progress.log(f"nothing to train: run {done['run_id']} has exactly these inputs")
        remove_folder(settings.runs / done["run_id"])  # left by a kill at the very end
        if _is_chosen(request, config, dataset, done["run_id"], tracker):
            request = replace(request, resume=None)
        write_results(request, done, settings, tracker)
        return done
    if config.train.workers == 0:
        settings = settings.without_ray
    with cluster_joined(settings, progress.log):
        require_cluster(settings, searching=False)
        chosen = plan(config.train, available_slots(settings, config.train, progress.log))
        if config.train.compile and not chosen.compiled:
            progress.log("warning: train.compile: no C++ compiler found; training without torch.compile")
        provenance = collect(settings.root, request.experiment, config, dataset, chosen.machine())
        if request.resume:
            refused = refusal(tracker.get(request.resume).data.tags, provenance.tags)
            if refused is not None:
                raise InputError(f"--resume: {refused}")
        for run_id in reap(settings, tracker):
            progress.log(f"run {run_id} died earlier; its status is now KILLED")
        with claim(settings, tracker, request.experiment, provenance, request.resume, request.new) as held:
            if held.finished:  # by another process in the meantime
                record = found_record(held.run_id, tracker)
                remove_folder(held.folder)
            else:
                assignment = _assignment(held, local, dataset, provenance.inputs, chosen, settings)
                record = _execute(assignment, chosen, held, settings, tracker, progress)
            write_results(request, record, settings, tracker)
            return record


def _assignment(
    held: Claim, config: ExperimentConfig, dataset: Dataset, inputs: Mapping[str, str], chosen: Plan, settings: Settings
) -> Assignment:
    """The run as plain data, for workers here or on other nodes."""
    return Assignment(
        held.run_id,
        resolved(config),
        str(settings.root),
        dataset.hash,
        str(held.folder),
        chosen.threads,
        chosen.gpu,
        inputs,
        chosen.compiled,
        cluster=bool(settings.ray_address),
        store=f"{settings.remote_runs}/{held.run_id}" if settings.remote_runs else "",
        attempt=lease_name(held.lease.number) if held.lease else "",
        session=held.session,
    )


def _find_finished(
    request: TrainRequest, config: ExperimentConfig, dataset: Dataset, tracker: Tracker, log: Log
) -> dict[str, Any] | None:
    """The record of the finished run with these inputs, unless the request is for a new one."""
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
            log(f"training again; to use that run: assay train {request.experiment} --resume {older.info.run_id}")
    return found_record(run.info.run_id, tracker) if run is not None and run.info.status == "FINISHED" else None


def _is_chosen(
    request: TrainRequest, config: ExperimentConfig, dataset: Dataset, run_id: str, tracker: Tracker
) -> bool:
    """Whether `--resume` names a finished run that `results/` may hold: one with the inputs of params.yaml."""
    plain = load_params(tracker.settings.params_file).experiments.get(request.experiment)
    if request.resume is None or config != plain:
        return False
    recorded = tracker.get(run_id).data.tags.get(PREFIX + "inputs_sha256")
    return bool(recorded == _inputs(config, dataset, tracker))


def _inputs(config: ExperimentConfig, dataset: Dataset, tracker: Tracker) -> str:
    here = Inputs.here(tracker.settings.root, config.task.name, config.task.files)
    return inputs_sha256(config, dataset.hash, here)


def found_record(run_id: str, tracker: Tracker) -> dict[str, Any]:
    """The record of a finished run that was found, not trained now."""
    return {**tracker.record(run_id), "trained_steps": 0}


def write_results(request: TrainRequest, record: Mapping[str, Any], settings: Settings, tracker: Tracker) -> None:
    """Write the outputs of the DVC stage if the request is the one of `dvc repro`."""
    if request.plain:
        if runs_as_stage():
            _require_as_now(request.experiment, record["run_id"], tracker)
        write_run(ExperimentResults.of(settings.root, request.experiment), record, tracker)


def _require_as_now(experiment: str, run_id: str, tracker: Tracker) -> None:
    """Raises `WorkError` if the run is not what would be trained now: something was edited since it began."""
    config = load_params(tracker.settings.params_file).experiment(experiment)
    dataset = open_or_fetch_dataset(config.data, tracker.settings, lambda _: None)
    if tracker.get(run_id).data.tags.get(PREFIX + "inputs_sha256") != _inputs(config, dataset, tracker):
        raise changed(f"the settings, the data or the code of {experiment!r}")


def requested_config(request: TrainRequest, settings: Settings, tracker: Tracker) -> ExperimentConfig:
    """The experiment's settings with the overrides of the request; those of the run if one is resumed."""
    params = load_params(settings.params_file)
    config = params.experiment(request.experiment)
    if request.preset:
        config = params.preset(request.experiment, request.preset)
    config = override(config, list(request.assignments))
    if request.resume is None:
        return config
    tags = tracker.get(request.resume).data.tags
    if (kind := tags.get(PREFIX + "kind", "run")) != "run":
        again = continuing(request.resume, tags)
        raise InputError(f"--resume {request.resume}: a {kind}, not a run; to continue the search: {again}")
    if tags.get(PREFIX + "experiment") != request.experiment:
        raise InputError(f"--resume {request.resume}: not a run of experiment {request.experiment!r}")
    if request.assignments or request.preset:
        raise InputError("--resume continues a run with its original settings: leave out --set, --preset and --workers")
    return recorded_config(request.resume, tracker)


def _execute(
    assignment: Assignment, chosen: Plan, held: Claim, settings: Settings, tracker: Tracker, progress: TrainingProgress
) -> dict[str, Any]:
    """Train, record the results, and give the run its final status; returns its record."""
    started = time.monotonic()
    lease = held.lease
    progress.log(f"{'training' if held.session == 1 else 'continuing'} run {held.run_id}")
    recorder = Recorder(tracker, held.run_id, held.folder, progress.log, lease.owns if lease else lambda: True)
    with status_as_earned(held.run_id, tracker), lease.kept() if lease else nullcontext():
        with progress.following(held.folder):
            outcome = None
            try:
                outcome = launch(assignment, chosen, settings, progress.tick, progress.log)
            finally:
                with _all_the_same(outcome, held.run_id):
                    recorder.close()
                    _log_pictures(held, tracker)
                    tags = note_starts(tracker, held.run_id, held.folder)
        if not outcome["finished"]:
            raise _stopped(outcome, held.run_id)
        record = _record(assignment, outcome, tags, time.monotonic() - started)
        _log_results(held, record, tracker)
    tracker.set_status(held.run_id, "FINISHED")
    if assignment.store:
        _clear_store(ObjectStore(assignment.store), progress.log)
    remove_folder(held.folder)  # all of it is in the tracking store now
    return record


def _stopped(outcome: Mapping[str, Any], run_id: str, besides: str = "") -> Interrupted:
    return Interrupted(
        f"stopped and saved at step {outcome['steps']}; to continue run {run_id}, run the same command{besides}"
    )


@contextmanager
def _all_the_same(outcome: Mapping[str, Any] | None, run_id: str) -> Iterator[None]:
    """A training that a signal stopped is stopped and saved, whether or not the tracking store hears of it now."""
    try:
        yield
    except Unavailable as error:
        if outcome is None or outcome["finished"]:
            raise
        raise _stopped(outcome, run_id, f" ({error})") from error


def _clear_store(store: ObjectStore, log: Log) -> None:
    """Remove what attempts have left of a finished run: all of it is in the tracking store."""
    try:
        store.clear(ATTEMPTS)
    except AssayError as error:
        log(f"warning: {store.address}/{ATTEMPTS} is not needed any more and could not be removed ({error})")


def _record(
    assignment: Assignment, outcome: Mapping[str, Any], tags: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    return {
        "run_id": assignment.run_id,
        "status": "FINISHED",
        "metrics": outcome["metrics"],
        "steps": outcome["steps"],
        "trained_steps": outcome["trained_steps"],
        "seconds": round(seconds, 2),
        "weights_sha256": outcome["weights_sha256"],
        "dataset": {"name": assignment.config["data"], "hash": assignment.dataset_hash},
        "resumed_from": outcome["resumed_from"],
        "facts": outcome["facts"],
        **sessions_record(tags),
    }


def _log_pictures(held: Claim, tracker: Tracker) -> None:
    """Record the pictures made while training, however it ended."""
    for path in sorted((held.folder / PICTURES).glob("*.png")):
        tracker.log_file(held.run_id, artifacts.TRAINING_PICTURES, path)


def _log_results(held: Claim, record: Mapping[str, Any], tracker: Tracker) -> None:
    """Record the weights, the curves and, last, the record, which marks the run as complete."""
    newest = max((held.folder / CHECKPOINTS).glob("step-*"))
    weights = held.folder / Path(artifacts.WEIGHTS).name
    shutil.copyfile(newest / "best.safetensors", weights)  # MLflow names an artifact after its file
    tracker.log_file(held.run_id, artifacts.WEIGHTS_FOLDER, weights)
    weights.unlink()
    tracker.log_curves(held.run_id, held.folder)
    notes = {f"{PREFIX}task.{name}": value[:5000] for name, value in record["facts"].items()}
    kept = json.dumps(record["metrics"])
    tracker.set_tags(held.run_id, {WEIGHTS_SHA256: record["weights_sha256"], KEPT: kept, **notes})
    tracker.log_text(held.run_id, artifacts.RECORD, json.dumps(record, indent=2))
