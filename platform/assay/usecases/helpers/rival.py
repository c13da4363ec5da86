"""The champion as a rival: its test metrics and the candidate's on the same samples, which neither has learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset, identities, seen_identities
from assay.data.part import part_of
from assay.errors import InputError, Unavailable, WorkError
from assay.log import Log
from assay.tracking import artifacts
from assay.tracking.evaluations import recorded_metrics
from assay.tracking.gates import Comparison
from assay.tracking.provenance import PREFIX
from assay.tracking.registry import Registry, run_of
from assay.usecases.helpers.trained import (
    as_trained,
    measure,
    open_training_dataset,
    recorded_config,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from assay.tracking.run import Run
    from assay.tracking.tracker import Tracker

VERSION = PREFIX + "dataset_hash"
SAME = (f"{PREFIX}classes_sha256", f"{PREFIX}task.styles")
"""The tags that say what a network tells apart or paints: only networks of the same are rivals."""
FEWEST = 30
"""Test samples that are new to both, to compare on them; a whole split may be smaller."""
IDENTITY = 16  # bytes


class NotCompared(Exception):
    """Why a candidate was not compared with the champion, for people."""


def compare(
    champion: ModelVersion | None, run: Run, registry: Registry, log: Log
) -> tuple[Comparison | None, list[str]]:
    """The metrics of a candidate's run and of the champion, and what to know about them.

    With the same dataset version, they are those that were recorded. With another one, the champion is measured on the
    candidate's test split, without the images that it was trained or validated on. What cannot be compared is said.

    Raises:
        InputError: the champion must be measured, but the candidate's dataset version is not here.
        WorkError: the champion could be compared, but something of it is lost or damaged, or measuring it failed.
    """
    if champion is None:
        return None, ["no champion to compare with"]
    try:
        with _unless_it_lacks_a_record():
            other = registry.tracker.get(run_of(champion))
            config = recorded_config(other.info.run_id, registry.tracker)
        past = unknown_past(config, "the champion")
        if other.data.tags.get(VERSION) == run.data.tags[VERSION]:
            return Comparison(recorded_metrics(run), recorded_metrics(other)), past
        comparison, note = _measured_anew(champion, other, config, run, registry.tracker, log)
        return comparison, [note, *past]
    except NotCompared as reason:
        return None, [f"not compared with the champion: {reason}"]


def unknown_past(config: ExperimentConfig, whose: str) -> list[str]:
    """Of weights from a file nobody knows what they have learnt from: the images of the test split, perhaps."""
    files = [name for name in config.task.files if name.endswith(".safetensors")]
    return [
        f"{whose} began with the weights {name}: whether they have learnt from test samples is unknown"
        for name in files
    ]


@contextmanager
def _unless_it_lacks_a_record() -> Iterator[None]:
    """What nobody can read is a reason not to compare: a run that was deleted, or is of an earlier Assay."""
    try:
        yield
    except InputError as error:
        raise NotCompared(str(error)) from error


@contextmanager
def _named(champion: ModelVersion) -> Iterator[None]:
    """A champion that cannot be measured now is not beaten: say which one it is, and what can be done."""
    try:
        yield
    except Unavailable:
        raise
    except (InputError, WorkError) as error:
        raise WorkError(
            f"the champion, version {champion.version} of {champion.name!r}, cannot be compared with: {error}; "
            f"restore what is lost, or take its place from it with `assay rollback {champion.name}`"
        ) from error


@contextmanager
def _unless_it_does_not_fit() -> Iterator[None]:
    """How networks fail on data of other shapes is a reason not to compare; want of memory is none."""
    try:
        yield
    except (RuntimeError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        if "memory" in reason.lower():
            raise WorkError(f"measuring it failed ({reason})") from error
        raise NotCompared(f"it does not fit this dataset version ({reason})") from error


def log_seen(run: Run, dataset: Dataset, tracker: Tracker) -> None:
    """Record with a run which images it was trained and validated on."""
    tracker.log_bytes(run.info.run_id, artifacts.SEEN, b"".join(sorted(seen_identities(dataset))))


def _measured_anew(
    champion: ModelVersion, other: Run, config: ExperimentConfig, run: Run, tracker: Tracker, log: Log
) -> tuple[Comparison, str]:
    """Both on the test samples of the candidate's version that are new to the champion, and which these are."""
    own = recorded_config(run.info.run_id, tracker)
    if config.task.name != own.task.name or any(other.data.tags.get(tag) != run.data.tags.get(tag) for tag in SAME):
        raise NotCompared("it was trained for another task or other classes")
    dataset = open_training_dataset(run, tracker.settings, log)
    with _named(champion):
        rows, total = _new_to_both(other, dataset, tracker)
    if len(rows) < min(FEWEST, total):
        raise NotCompared(f"only {len(rows)} of {total} test samples are new to the champion")
    shown = dataset if len(rows) == total else part_of(dataset, "test", rows)
    with _unless_it_lacks_a_record():
        seen_by_it = as_trained(other, shown, tracker)
    with _named(champion), _unless_it_does_not_fit():
        theirs, _ = measure(other, config, seen_by_it, "test", tracker, draw=False)
    if len(rows) == total:
        return Comparison(recorded_metrics(run), theirs), "the champion was measured again on this dataset version"
    ours, _ = measure(run, own, as_trained(run, shown, tracker), "test", tracker, draw=False)
    which = f"compared on the {len(rows)} of {total} test samples of this dataset version that are new to the champion"
    return Comparison(ours, theirs), which


def _new_to_both(
    other: Run, dataset: Dataset, tracker: Tracker
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], int]:
    """The numbers of the test samples that neither the champion nor the candidate has learnt from; and of all."""
    run_id = other.info.run_id
    if artifacts.SEEN.rpartition("/")[2] not in tracker.names(run_id, artifacts.PROVENANCE):
        raise NotCompared("it was registered without a record of the images that it was trained on")
    stored = tracker.read_bytes(run_id, artifacts.SEEN)
    seen = {stored[i : i + IDENTITY] for i in range(0, len(stored), IDENTITY)} | set(seen_identities(dataset))
    test = identities(dataset, "test")
    return np.array([row for row, identity in enumerate(test) if identity not in seen], dtype=np.int64), len(test)
