"""Runs of the tiny task that tests kill and stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from assay.config.experiment import ExperimentConfig
from assay.train.context import LocalContext
from assay.train.folder import SPOOL, STOP
from assay.train.loop import Outcome, train
from assay.train.randomness import key
from assay.train.spool import read_spool
from tests.support.tiny_task import Config, Task, source

CPU = torch.device("cpu")
EPOCHS, STEPS = 3, 6  # 26 samples make 6 batches of 4
TOTAL = EPOCHS * STEPS
SOURCES = {split: source(Config(), None, split) for split in ("train", "val")}


class Killed(Exception):
    """Stands for `kill -9`: nothing catches it."""


def config(task: Mapping[str, Any] | None = None, **changes: Any) -> ExperimentConfig:
    train = {"epochs": EPOCHS, "batch_size": 4, "workers": 0, "checkpoint_seconds": 0}
    optimizer = {"lr": 0.02, "schedule": "cosine", "warmup": 0.1}
    return ExperimentConfig.model_validate(
        {"task": Config(**(task or {})), "data": "points", "seed": 5, "optimizer": optimizer, "train": train | changes}
    )


def attempt(
    folder: Path,
    settings: ExperimentConfig,
    before: Callable[[int], None] = lambda step: None,
    context: LocalContext | None = None,
    sources: Mapping[str, Any] = SOURCES,
) -> Outcome:
    """One process's try at a run: a new task, as a worker makes it."""
    context = context or LocalContext(folder, CPU, 1)
    torch.manual_seed(key(settings.seed, "init"))
    task = Task.build(settings, None, context)
    task.before = before
    try:
        return train(task, sources, settings, context)
    finally:
        context.close()


def dying_at(step: int) -> Callable[[int], None]:
    def before(done: int) -> None:
        if done == step:
            raise Killed

    return before


def stopping_at(folder: Path, step: int) -> Callable[[int], None]:
    def before(done: int) -> None:
        if done == step:
            (folder / STOP).touch()

    return before


def spooled(folder: Path) -> list[tuple[int, str, float]]:
    """Every point but what the machine says of itself, in order."""
    rows = [(r.step, name, value) for r, _ in read_spool(folder / SPOOL, 0) for name, value in r.metrics.items()]
    return [row for row in rows if not row[1].startswith(("time/", "system/"))]


def same(outcome: Outcome, whole: Outcome) -> bool:
    return (outcome.finished, outcome.weights_sha256, outcome.steps, dict(outcome.metrics)) == (
        True, whole.weights_sha256, whole.steps, dict(whole.metrics),
    )  # fmt: skip
