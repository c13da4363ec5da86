"""An evaluation counts every sample once, whatever the batch and the number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.config.experiment import ExperimentConfig
from assay.train.context import LocalContext
from assay.train.loop import evaluate
from tests.support.ranks import Group, ThreadContext
from tests.support.tiny_task import Config, Points, Task

CPU = torch.device("cpu")
CONFIG = ExperimentConfig.model_validate({"task": Config(dropout=0, normalize=False), "data": "points"})


def test_an_evaluation_is_over_every_sample_whatever_the_batch(tmp_path: Path) -> None:
    context = LocalContext(tmp_path, CPU, 1)
    torch.manual_seed(0)
    task = Task.build(CONFIG, None, context)
    task.train(False)
    points = Points("val", 10)
    with torch.no_grad():
        expected = ((task.network(points.x)[:, 0] - points.y) ** 2).mean().item()
    for size in (1, 3, 10, 64):
        task.train(True)
        metrics, pictures = evaluate(task, points, "test", size, context)
        assert metrics["test/loss"] == pytest.approx(expected, rel=1e-6)
        assert set(metrics) == {"test/loss", "test/above"}
        assert pictures == []


def test_a_batch_of_an_evaluation_is_shared_by_the_workers(tmp_path: Path) -> None:
    largest: list[int] = []

    class Counted(Points):
        def load(self, indices: Any, draw: Any) -> dict[str, Tensor]:
            largest.append(len(indices))
            return super().load(indices, draw)

    group = Group(3)
    torch.manual_seed(1)
    task = Task.build(CONFIG, None, LocalContext(tmp_path, CPU, 1))
    alone = evaluate(task, Points("val", 10), "val", 4, LocalContext(tmp_path, CPU, 1))[0]

    def body(rank: int) -> dict[str, float]:
        return evaluate(task, Counted("val", 10), "val", 4, ThreadContext(tmp_path, group, rank))[0]

    for metrics in group.run(body):
        assert metrics == pytest.approx(alone, rel=1e-6)
    assert max(largest) == 2


def test_a_worker_without_a_sample_of_a_split_adds_nothing(tmp_path: Path) -> None:
    """Where a split has fewer samples than there are workers."""
    group = Group(3)
    torch.manual_seed(1)
    task = Task.build(CONFIG, None, LocalContext(tmp_path, CPU, 1))
    alone = evaluate(task, Points("val", 1), "val", 4, LocalContext(tmp_path, CPU, 1))[0]
    found = group.run(lambda rank: evaluate(task, Points("val", 1), "val", 4, ThreadContext(tmp_path, group, rank))[0])
    assert found == [pytest.approx(alone, rel=1e-6)] * 3
