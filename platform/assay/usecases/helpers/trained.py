"""A finished run: which one a name means, its settings and dataset, its trained task, and how good that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from assay.config.card import Card
from assay.config.experiment import ExperimentConfig, parse_experiment
from assay.data.dataset import Dataset
from assay.errors import InputError, WorkError
from assay.log import Log
from assay.scratch import scratch_folder
from assay.settings import Settings
from assay.storage.dataset_versions import open_version
from assay.tracking import artifacts
from assay.tracking.provenance import PREFIX, WEIGHTS_SHA256, missing
from assay.tracking.tracker import Tracker, hash_tag
from assay.usecases.helpers.results import ExperimentResults, SearchResults

if TYPE_CHECKING:
    from assay.task import Picture, Task
    from assay.tracking.run import Run


def resolve_run(target: str, settings: Settings) -> str:
    """The id of a run: `target` itself if it is an id, else the run of that experiment in `results/`.

    Raises:
        InputError: no such experiment, or it has no finished run here.
    """
    if len(target) == 32 and set(target) <= set("0123456789abcdef"):
        return target
    results = ExperimentResults.of(settings.root, target)
    if not results.record.exists():
        from assay.config.params import load_params

        load_params(settings.params_file).experiment(target)
        raise InputError(
            f"experiment {target!r} has no finished run here as params.yaml has it: run `assay train {target}`, "
            "or name one of its runs by the id that `assay runs` shows"
        )
    run_id: str = results.read(results.record, needs=("run_id",))["run_id"]
    return run_id


def recorded_config(run_id: str, tracker: Tracker) -> ExperimentConfig:
    """The settings that a run was trained with."""
    return parse_experiment(tracker.read_object(run_id, artifacts.CONFIG), f"run {run_id}")


def require_trained(run: Run, doing: str, tracker: Tracker) -> None:
    """Raises `InputError` if a run cannot be, say, `evaluated`. A trial of a search's front can: it has its weights."""
    run_id, tags = run.info.run_id, run.data.tags
    kind = tags.get(PREFIX + "kind", "run")
    if kind == "search" or (kind == "trial" and artifacts.RECORD not in tracker.names(run_id, "")):
        listed = SearchResults.of(Path(), tags.get(PREFIX + "search", "SEARCH")).record
        named = f"name a trial of the `front` in {listed}, which is written when a session of the search ends"
        raise InputError(f"{kind} {run_id} cannot be {doing}: it has no weights; {named}")
    if run.info.status != "FINISHED":
        why = f"its status is {run.info.status}: train it to the end"
        raise InputError(f"run {run_id} cannot be {doing}: {why}")


def require_explained(run: Run, tracker: Tracker) -> None:
    """Make sure that what a run was made from is recorded, is still there, and is what was recorded.

    Raises:
        InputError: something is not there.
        WorkError: something is not what was recorded.
    """
    run_id, lacks = run.info.run_id, missing(run.data.tags)
    for tag in sorted(tag for tag in run.data.tags if tag.startswith(hash_tag(f"{artifacts.PROVENANCE}/"))):
        name = tag.removeprefix(hash_tag(""))
        try:
            tracker.read_bytes(run_id, name)
        except InputError:  # of other names, a kill may have come between the tag and the artifact
            lacks += [name] if name in artifacts.EXPLAIN else []
    if lacks:
        why = f"its provenance lacks {', '.join(lacks)}: train it again with --new"
        raise InputError(f"run {run_id} cannot be registered: {why}")


def open_training_dataset(run: Run, settings: Settings, log: Log) -> Dataset:
    """The dataset version that a run was trained on, wherever it is. Raises `InputError` if it is nowhere."""
    tags = run.data.tags
    return open_version(settings, tags[PREFIX + "dataset"], tags[PREFIX + "dataset_hash"], log)


def as_trained(run: Run, dataset: Dataset, tracker: Tracker) -> Dataset:
    """The samples of a dataset version as a run sees them: with the classes, channels and moments of its own record.

    Raises:
        InputError: the run does not record them, and was not trained on this version.
    """
    run_id = run.info.run_id
    if Path(artifacts.CARD).name not in tracker.names(run_id, artifacts.PROVENANCE):
        if dataset.hash == run.data.tags[PREFIX + "dataset_hash"]:
            return dataset
        raise InputError(f"run {run_id} does not record what its data were like: train it again with --new")
    try:
        card = Card.model_validate_json(tracker.read_bytes(run_id, artifacts.CARD))
    except ValidationError as error:
        fault = f"{error.error_count()} faults"
        raise InputError(f"run {run_id}: its {artifacts.CARD} cannot be read ({fault}): train it again") from None
    return replace(dataset, card=card)


def load_trained(run: Run, config: ExperimentConfig, dataset: Dataset, tracker: Tracker, folder: Path) -> Task:
    """The trained task of a run, on the CPU.

    Args:
        dataset: as `as_trained` returns it.

    Raises:
        WorkError: the weights are not the ones that the run recorded.
    """
    from assay.train.prepare import load_weights, rebuild

    run_id = run.info.run_id
    recorded: str = tracker.record(run_id)["weights_sha256"]
    if run.data.tags.get(WEIGHTS_SHA256, recorded) != recorded:
        raise WorkError(
            f"run {run_id} records two hashes of its weights, as a tag and in {artifacts.RECORD}: train again"
        )
    path = tracker.fetch(run_id, artifacts.WEIGHTS, folder)
    return rebuild(config, dataset, folder, load_weights(path, recorded, f"run {run_id}"))


def measure(
    run: Run, config: ExperimentConfig, dataset: Dataset, split: str, tracker: Tracker, draw: bool = True
) -> tuple[dict[str, float], list[Picture]]:
    """Metrics and, if `draw`, pictures of a run's weights on a split of a dataset, as `as_trained` returns it."""
    import torch

    from assay.config.plugin import load_task
    from assay.train.context import LocalContext
    from assay.train.loop import evaluate

    _, source = load_task(config.task.name)
    with scratch_folder(tracker.settings.root) as folder:
        task = load_trained(run, config, dataset, tracker, folder)
        context = LocalContext(folder, torch.device("cpu"), torch.get_num_threads())
        measured = evaluate(task, source(config.task, dataset, split), split, config.train.batch_size, context, draw)
        dataset.require_unchanged()
        return measured
