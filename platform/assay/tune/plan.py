"""How many trials run at a time, and with how much of the machine. Decided before the start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay.config.experiment import TrainConfig
from assay.errors import InputError
from assay.workers.plan import Slots, machine, plan


@dataclass(frozen=True)
class TrialPlan:
    """The resources of each of `parallel` trials.

    Attributes:
        workers: above 1: of Ray Train, which reserves for them; 0 and 1 train in the actor of the slot.
        threads: of each worker.
        cpus, gpus: of the actor; parts of one if trials share it.
    """

    parallel: int
    workers: int
    device: str
    threads: int
    compiled: bool
    cpus: float
    gpus: float

    @property
    def resources(self) -> Any:
        """What Tune reserves for a slot: nothing if Ray Train reserves for its workers."""
        from ray.tune import PlacementGroupFactory

        if self.workers > 1:
            return PlacementGroupFactory([{"memory": 1.0}])  # one byte, as Tune refuses an empty reservation
        return PlacementGroupFactory([{"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}])

    def machine(self) -> Mapping[str, str]:
        """The part that provenance records."""
        return machine(self.workers, self.threads, self.device, self.compiled)


def trial_plan(config: TrainConfig, parallel: int | None, slots: Slots) -> TrialPlan:
    """As many trials as there are slots, unless `parallel` is given; if there are more than devices, they share them.

    Raises:
        InputError: not one trial fits, or multi-worker trials would have to share.
    """
    one = plan(config, slots)
    ranks = max(config.workers, 1)
    devices = slots.gpus if one.gpu else slots.cpus
    fit = devices // ranks
    chosen = parallel or fit
    if ranks > 1 and chosen > fit:
        kind = "GPU" if one.gpu else "CPU core"
        raise InputError(
            f"parallel: {chosen} trials of {ranks} workers need {chosen * ranks} {kind}s, but there are {devices}: "
            f"use {fit} at a time"
        )
    threads = slots.threads(chosen * ranks, False)  # 0: more trials than cores, which they share
    cpus = float(threads * ranks) if threads else _part(slots.cpus, chosen, len(slots.nodes))
    gpus = (1.0 if slots.gpus >= chosen else _part(slots.gpus, chosen, len(slots.nodes))) if one.gpu else 0.0
    return TrialPlan(chosen, config.workers, one.device, max(1, threads), one.compiled, cpus, gpus)


def _part(devices: int, trials: int, nodes: int) -> float:
    """The part of a device for one of the trials that share it, rounded down so that all fit, on whatever nodes."""
    part = 1 / math.ceil(trials / devices) if nodes > 1 else devices / trials
    return math.floor(part * 1e4) / 1e4
