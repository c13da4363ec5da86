"""A search while its trials run: the tie between the search's state and Ray Tune."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from assay.train.folder import STOP
from assay.tune.plan import TrialPlan
from assay.tune.search import Search, Trial
from assay.tune.trial import TrialAssignment, trial_folder

TUNE = "tune"  # Ray Tune's own files, below the search's folder


class Listener(Protocol):
    """Called for every trial, to record it. Must return at once."""

    def started(self, trial: Trial) -> None: ...

    def ended(self, trial: Trial) -> None: ...


@dataclass(frozen=True)
class LiveSearch:
    """All that the executor works with.

    Attributes:
        search: the state of the search.
        assign: turns a trial into the assignment of a slot; raises `InputError` if its values do not go together.
        folder: of the search; trials have theirs below it.
        deadline: of `time.monotonic`, after which running trials are saved and stopped; None: never.
    """

    search: Search
    assign: Callable[[Trial], TrialAssignment]
    listener: Listener
    folder: Path
    plan: TrialPlan
    deadline: float | None = None

    def trial_folder(self, trial: Trial) -> Path:
        return trial_folder(self.folder, trial.number)

    def stop_requested(self) -> bool:
        late = self.deadline is not None and time.monotonic() > self.deadline
        return late or (self.folder / STOP).exists()
