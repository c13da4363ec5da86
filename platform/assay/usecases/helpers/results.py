"""What `results/` holds for DVC, for flows and for people: the outputs of the stages after `data`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import InputError
from assay.files import read_json, write_atomic, write_json
from assay.tracking import artifacts

if TYPE_CHECKING:
    from assay.tracking.tracker import Tracker

SHA256 = "sha256"
"""In a file of `results/`: the hash of all else that it says."""


@dataclass(frozen=True)
class ExperimentResults:
    """`results/EXPERIMENT/`: of the newest run with the settings of `params.yaml`."""

    folder: Path

    @classmethod
    def of(cls, root: Path, experiment: str) -> ExperimentResults:
        return cls(root / "results" / experiment)

    @property
    def record(self) -> Path:
        """The run's record, without what differs from one session to the next."""
        return self.folder / "train.json"

    @property
    def curves(self) -> Path:
        """The training and validation metrics by step: metric, step, value."""
        return self.folder / "curves.csv"

    @property
    def metrics(self) -> Path:
        """The metrics of the last evaluation."""
        return self.folder / "metrics.json"

    @property
    def pictures(self) -> Path:
        """The folder of the pictures of the last evaluation."""
        return self.folder / "pictures"

    @property
    def model(self) -> Path:
        """The registered version, and what the gate decided."""
        return self.folder / "model.json"

    def read(self, file: Path, needs: Sequence[str] = ()) -> dict[str, Any]:
        """The object in the record, the metrics or the model. Raises `InputError` if it is damaged or lacks a name."""
        verb = {self.record: "train", self.metrics: "evaluate", self.model: "register"}[file]
        return read_record(file, f"run `assay {verb} {self.folder.name}`, which writes it again", needs)


@dataclass(frozen=True)
class SearchResults:
    """`results/searches/SEARCH/`: of the newest search with the block of `params.yaml`."""

    folder: Path

    @classmethod
    def of(cls, root: Path, search: str) -> SearchResults:
        return cls(root / "results" / "searches" / search)

    @property
    def record(self) -> Path:
        """The search's record, without what differs from one session to the next."""
        return self.folder / "search.json"

    @property
    def page(self) -> Path:
        """The report for a browser."""
        return self.folder / "search.html"

    @property
    def trials(self) -> Path:
        """The trials with their settings and metrics."""
        return self.folder / "trials.csv"

    def read(self) -> dict[str, Any]:
        """The search's record. Raises `InputError` if it is damaged."""
        return read_record(self.record, f"run `assay tune {self.folder.name}`, which writes it again")


def write_record(path: Path, data: Mapping[str, Any]) -> None:
    """Write a file of `results/` with a hash of what it says."""
    write_json(path, {**data, SHA256: _sha256(data)})


def read_record(path: Path, fix: str, needs: Sequence[str] = ()) -> dict[str, Any]:
    """What `write_record` wrote; files without a hash are believed.

    Args:
        fix, needs: as in `read_json`.

    Raises:
        InputError: the file is damaged, lacks a name, or says something else than was written.
    """
    data = read_json(path, fix, needs)
    if data.pop(SHA256, None) not in (None, _sha256(data)):
        raise InputError(f"{path}: is not what was written: {fix}")
    return data


def _sha256(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def write_run(results: ExperimentResults, record: Mapping[str, Any], tracker: Tracker) -> None:
    """Write the outputs of the DVC stage `train`. They are the same for the same run, whenever they are written."""
    results.folder.mkdir(parents=True, exist_ok=True)
    write_record(results.record, _without(record, "trained_steps", "status", "resumed_from", "seconds"))
    write_atomic(results.curves, tracker.read_bytes(record["run_id"], artifacts.CURVES))


def write_search(results: SearchResults, record: Mapping[str, Any], tracker: Tracker) -> None:
    """Write the outputs of the DVC stage `search`. They are the same for the same search, whenever they are written."""
    results.folder.mkdir(parents=True, exist_ok=True)
    write_record(results.record, _without(record, "seconds", "status"))
    for path, name in ((results.page, artifacts.PAGE), (results.trials, artifacts.TRIALS)):
        write_atomic(path, tracker.read_bytes(record["search_id"], name))


def _without(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}
