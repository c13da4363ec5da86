"""Validating inside an epoch shows how good the weights are, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.train.context import LocalContext
from assay.train.folder import SPOOL, STOP
from assay.train.loop import Outcome, Training
from assay.train.randomness import key
from assay.train.spool import read_spool
from assay.tune import trial as trials
from assay.tune.trial import Here, TrialAssignment
from assay.workers.arrive import Arrival
from tests.support.tiny_task import Config, Task, source

SOURCES = {split: source(Config(), None, split) for split in ("train", "val")}


def config(batch_size: int = 4) -> ExperimentConfig:  # 26 samples make 6 batches of 4
    train = {"epochs": 3, "batch_size": batch_size, "workers": 0, "checkpoint_seconds": 0}
    plain = {"task": Config(), "data": "points", "seed": 5, "optimizer": {"lr": 0.02}, "train": train}
    return ExperimentConfig.model_validate(plain)


def training(folder: Path, settings: ExperimentConfig) -> Training:
    context = LocalContext(folder, torch.device("cpu"), 1)
    torch.manual_seed(key(settings.seed, "init"))
    return Training(Task.build(settings, None, context), SOURCES, settings, context)


def validated(folder: Path, validate_at: Sequence[float], settings: ExperimentConfig | None = None) -> Outcome:
    begun = training(folder, settings or config())
    outcome = begun.run(validate_at)
    begun.context.close()
    return outcome


def evaluations(folder: Path) -> dict[int, float]:
    return {r.step: r.metrics["val/loss"] for r, _ in read_spool(folder / SPOOL, 0) if "val/loss" in r.metrics}


def test_validations_are_recorded_and_change_nothing(tmp_path: Path) -> None:
    plain, other = validated(tmp_path / "plain", ()), validated(tmp_path / "validated", (1 / 9, 1 / 3, 0.5))
    assert (other.weights_sha256, other.metrics) == (plain.weights_sha256, plain.metrics)
    without, seen = evaluations(tmp_path / "plain"), evaluations(tmp_path / "validated")
    assert sorted(seen) == [1, 2, 3, 6, 12, 18]
    assert {step: seen[step] for step in without} == without
    assert len(set(seen.values())) == 6


def test_a_part_that_is_the_whole_epoch_is_its_evaluation(tmp_path: Path) -> None:
    validated(tmp_path, (0.25, 0.5), config(batch_size=26))
    assert sorted(evaluations(tmp_path)) == [1, 2, 3]


@pytest.mark.parametrize("step", [0, 1, 2, 3, 5, 8])
def test_stopped_around_a_look_it_goes_on_as_if_it_had_not_been(tmp_path: Path, step: int) -> None:
    whole = validated(tmp_path / "whole", (1 / 3, 0.5))
    begun = training(tmp_path / "s", config())
    begun.task.before = lambda done: (tmp_path / "s" / STOP).touch() if done == step else None  # type: ignore[attr-defined]
    assert not begun.run((1 / 3, 0.5)).finished
    begun.context.close()
    (tmp_path / "s" / STOP).unlink()
    outcome = validated(tmp_path / "s", (1 / 3, 0.5))
    assert outcome.finished
    assert outcome.weights_sha256 == whole.weights_sha256
    assert evaluations(tmp_path / "s") == evaluations(tmp_path / "whole")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trials of the tiny task, each in a process of its own, as it were."""
    monkeypatch.setattr(trials, "arrive", lambda assignment, log: Arrival(config(), cast("Dataset", None)))
    monkeypatch.setattr(trials, "require_inputs", lambda own, config: None)
    monkeypatch.setattr(trials, "prepare", lambda settings, dataset, context: training(tmp_path, settings))
    plain = {
        "run_id": "r", "config": {}, "project": "", "dataset_hash": "", "folder": str(tmp_path), "threads": 1,
        "gpu": False, "inputs": {},
    }  # fmt: skip
    return lambda: Here(TrialAssignment(plain, 0, until=3, milestones=(0.5, 1)))


def test_a_trial_reports_at_its_milestones(made: Any, tmp_path: Path) -> None:
    runner = made()
    reports = [runner.advance() for _ in range(3)]
    assert [report["epoch"] for report in reports] == [0.5, 1, 3]
    seen = evaluations(tmp_path)
    assert [report["metrics"]["val/loss"] for report in reports[:2]] == [seen[3], seen[6]]
    assert reports[2]["done"]


@pytest.mark.parametrize("reports", [1, 2, 3])
def test_a_lost_report_is_repeated(made: Any, reports: int) -> None:
    killed = made()
    *_, last = [killed.advance() for _ in range(reports)]
    killed.training.save()  # as it may have, just before the kill
    assert made().advance() == last
