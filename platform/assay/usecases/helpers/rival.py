"""The champion as a rival: its test metrics and the candidate's on the same samples, which neither has learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from assay.data.dataset import Dataset, identities, seen_identities
from assay.data.part import part_of
from assay.errors import AssayError, Unavailable
from assay.log import Log
from assay.tracking import artifacts
from assay.tracking.gates import Comparison
from assay.tracking.provenance import PREFIX
from assay.tracking.registry import Registry, run_of
from assay.usecases.helpers.trained import (
    as_trained,
    measure,
    open_training_dataset,
    recorded_config,
    recorded_metrics,
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
    """
    if champion is None:
        return None, ["no champion to compare with"]
    try:
        with _of_the_champion():
            other = registry.tracker.get(run_of(champion))
        if other.data.tags.get(VERSION) == run.data.tags[VERSION]:
            return Comparison(recorded_metrics(run), recorded_metrics(other)), []
        return _measured_anew(other, run, registry.tracker, log)
    except NotCompared as reason:
        return None, [f"not compared with the champion: {reason}"]


@contextmanager
def _of_the_champion() -> Iterator[None]:
    """What is wrong with the champion is a reason not to compare, and no failure. A store that is silent is one."""
    try:
        yield
    except Unavailable:
        raise
    except AssayError as error:
        raise NotCompared(str(error)) from error
    except (RuntimeError, ValueError, LookupError) as error:  # how networks and data of other shapes fail
        raise NotCompared(f"it does not fit this dataset version ({' '.join(str(error).split())[:200]})") from error


def log_seen(run: Run, dataset: Dataset, tracker: Tracker) -> None:
    """Record with a run which images it was trained and validated on."""
    tracker.log_bytes(run.info.run_id, artifacts.SEEN, b"".join(sorted(seen_identities(dataset))))


def _measured_anew(other: Run, run: Run, tracker: Tracker, log: Log) -> tuple[Comparison, list[str]]:
    own = recorded_config(run.info.run_id, tracker)
    with _of_the_champion():
        config = recorded_config(other.info.run_id, tracker)
    if config.task.name != own.task.name or any(other.data.tags.get(tag) != run.data.tags.get(tag) for tag in SAME):
        raise NotCompared("it was trained for another task or other classes")
    dataset = open_training_dataset(run, tracker.settings, log)
    rows, total = _new_to_both(other, dataset, tracker)
    if len(rows) < min(FEWEST, total):
        raise NotCompared(f"only {len(rows)} of {total} test samples are new to the champion")
    shown = dataset if len(rows) == total else part_of(dataset, "test", rows)
    with _of_the_champion():
        theirs, _ = measure(other, config, as_trained(other, shown, tracker), "test", tracker, draw=False)
    if len(rows) == total:
        return Comparison(recorded_metrics(run), theirs), ["the champion was measured again on this dataset version"]
    ours, _ = measure(run, own, as_trained(run, shown, tracker), "test", tracker, draw=False)
    note = f"compared on the {len(rows)} of {total} test samples of this dataset version that are new to the champion"
    return Comparison(ours, theirs), [note]


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
