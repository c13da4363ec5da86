"""What runs a search's trials needs of the search: the tie between the search's state and Ray Tune."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from assay.train.folder import STOP
from assay.tune.plan import TrialPlan
from assay.tune.search import Search, Trial
from assay.tune.trial import TrialJob, trial_folder

TUNE = "tune"  # Ray Tune's own files, below the search's folder


class Listener(Protocol):
    """Hears of every trial: the record of the search. It must return at once."""

    def started(self, trial: Trial) -> None: ...

    def ended(self, trial: Trial) -> None: ...


@dataclass(frozen=True)
class Work:
    """What the executor needs of a search: its state, how a trial becomes a job, and who listens.

    Attributes:
        folder: of the search; trials have theirs below it.
        deadline: of `time.monotonic`, after which running trials are saved and stopped; None: never.
    """

    search: Search
    job: Callable[[Trial], TrialJob]
    listener: Listener
    folder: Path
    plan: TrialPlan
    deadline: float | None = None

    def trial_folder(self, trial: Trial) -> Path:
        return trial_folder(self.folder, trial.number)

    @property
    def stopping(self) -> bool:
        late = self.deadline is not None and time.monotonic() > self.deadline
        return late or (self.folder / STOP).exists()
