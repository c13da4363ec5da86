"""Trainings through the platform's own loop, in this process: without Ray, DVC and MLflow."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from assay.config.experiment import ExperimentConfig
from assay.config.params import Params
from assay.config.plugin import load_task
from assay.data.dataset import Dataset, prepare
from assay.task import Source, Task
from assay.train.context import LocalContext
from assay.train.loop import evaluate, train
from assay.train.randomness import key
from benchmarks.common import REPOSITORY


def packed(name: str, params: Params, folder: Path) -> Dataset:
    """A dataset of params.yaml, made in `folder`; its hash is not asked for."""
    place = folder / name
    card = prepare(REPOSITORY, name, params.dataset(name), place, lambda *_: None)
    return Dataset(place, card, "0" * 32)


def context_in(folder: Path) -> LocalContext:
    return LocalContext(folder, torch.device("cpu"), torch.get_num_threads())


def built(config: ExperimentConfig, dataset: Dataset, context: LocalContext) -> tuple[Task, dict[str, Source]]:
    """The task as a worker would start it, and the source of each split."""
    make, source = load_task(config.task.name)
    torch.manual_seed(key(config.seed, "init"))
    task = make.build(config, dataset, context)
    return task, {split: source(config.task, dataset, split) for split in ("train", "val", "test")}


def learnt(
    task: Task, sources: dict[str, Source], config: ExperimentConfig, context: LocalContext, batch: int
) -> tuple[dict[str, float], float]:
    """Train the task; (test metrics, seconds of training). Evaluates `batch` samples at a time."""
    started = time.monotonic()
    task.load_state_dict(train(task, sources, config, context).weights)
    seconds = time.monotonic() - started
    metrics, _ = evaluate(task, sources["test"], "test", batch, context, draw=False)
    return metrics, seconds
