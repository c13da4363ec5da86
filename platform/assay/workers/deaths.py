"""How often what a training runs on may die, and how long to wait before the next attempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from assay.errors import Interrupted, WorkError
from assay.log import Log

LIVES = 3
"""Deaths without progress between them after which a run is given up; one of weeks may see any number of deaths."""
LONGEST_WAIT = 60.0
TICK_SECONDS = 0.2


class Deaths:
    """The deaths of what a run works with, be it workers, a node or all of Ray.

    Args:
        reached: how far the run is, in numbers that grow.
        stopped: whether the user has asked it to stop.

    Attributes:
        total: how many there were.
    """

    def __init__(self, reached: Callable[[], Sequence[float]], stopped: Callable[[], bool]) -> None:
        self.reached = reached
        self.stopped = stopped
        self.best = list(reached())
        self.total = self.without_progress = 0
        self.seconds = 1.0

    def add(self, who: str, why: str, log: Log) -> None:
        """Count a death, and wait: 1, 2, 4, … seconds, at most a minute.

        Raises:
            WorkError: there were too many since the last progress.
            Interrupted: a stop was requested meanwhile.
        """
        now = self.reached()
        if any(new > old for new, old in zip(now, self.best, strict=True)):
            self.without_progress = 0
        self.best = [max(pair) for pair in zip(now, self.best, strict=True)]
        self.total, self.without_progress = self.total + 1, self.without_progress + 1
        if self.without_progress >= LIVES:
            raise WorkError(f"{who} died {LIVES} times without progress; the last time: {why}")
        log(f"{who} died ({why}); continuing from the last checkpoint in {self.seconds:.0f} s")
        pause(self.seconds, self.stopped)
        self.seconds = min(2 * self.seconds, LONGEST_WAIT)


def pause(seconds: float, stopped: Callable[[], bool]) -> None:
    """Wait. Raises `Interrupted` once a stop is requested."""
    limit = time.monotonic() + seconds
    while True:
        hear(stopped)
        left = limit - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, TICK_SECONDS))


def hear(stopped: Callable[[], bool]) -> None:
    """Raise `Interrupted` if a stop is requested."""
    if stopped():
        raise Interrupted("stopped; to continue, run the same command")
