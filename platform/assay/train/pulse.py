"""When the workers of a training stop and save."""

from __future__ import annotations

import math
import time

import torch

from assay.train.context import LocalContext

SECONDS = 0.5
"""Between two agreements, about."""


class Stopped(Exception):
    """The workers agreed to stop within a block that saves nothing."""


class Pulse:
    """Agreement among workers on when to stop and when to save: rank 0 decides by its clock, all follow at one step.

    The next time to agree is itself agreed on as a number of steps, so no step pays for it.
    """

    def __init__(self, context: LocalContext, checkpoint_seconds: float = math.inf) -> None:
        self.context = context
        self.checkpoint_seconds = checkpoint_seconds
        self.saved = self.agreed = time.monotonic()
        self.steps = 0
        self.interval = 1

    def due(self) -> bool:
        """Count a step; True if it is time to agree."""
        self.steps += 1
        return self.steps >= self.interval

    def agree(self) -> tuple[bool, bool]:
        """(stop, save), the same on every worker."""
        now = time.monotonic()
        stop, save, interval = 0.0, 0.0, float(self.interval)
        if self.context.rank == 0:
            stop = float(self.context.stop_requested())
            save = float(now - self.saved >= self.checkpoint_seconds)
            if self.steps:
                per_step = max(now - self.agreed, 1e-6) / self.steps
                interval = float(max(1, min(round(SECONDS / per_step), 2 * self.interval)))
        decision = torch.tensor([stop, save, interval], device=self.context.device)
        stop, save, interval = self.context.all_reduce(decision).tolist()
        self.interval, self.steps, self.agreed = int(interval), 0, now
        if stop or save:
            self.saved = now
        return bool(stop), bool(save)

    def require_no_stop(self) -> None:
        """Raises `Stopped` on every worker if a stop was requested."""
        if self.agree()[0]:
            raise Stopped
