"""People see how far a run is, in the steps that its loader counts."""

from __future__ import annotations

from pathlib import Path

import torch

from assay.config.experiment import ExperimentConfig
from assay.train.context import LocalContext
from assay.train.loop import train
from assay.usecases.helpers.training_progress import TrainingProgress
from tests.support.tiny_task import Config, Task, source


def test_the_steps_shown_are_those_of_the_loader(tmp_path: Path) -> None:
    plain = {"task": Config(), "data": "points", "train": {"epochs": 3, "batch_size": 4, "workers": 0}}
    config = ExperimentConfig.model_validate(plain)
    context = LocalContext(tmp_path, torch.device("cpu"), 1)
    splits = {split: source(Config(), None, split) for split in ("train", "val")}
    said: list[str] = []
    progress = TrainingProgress(said.append)
    with progress.following(tmp_path):
        progress.tick()  # before there is anything to see
        train(Task.build(config, None, context), splits, config, context)
        progress.tick()
    context.close()
    assert said[-1].startswith("step 18 of 18, ")  # 26 samples make 6 batches of 4
