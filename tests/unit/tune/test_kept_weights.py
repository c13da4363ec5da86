"""What a trial reports is what it keeps: the metrics, the weights and their hash are of one state."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.train.checkpoint import weights_sha256
from assay.train.context import LocalContext
from assay.train.loop import Training, evaluate
from assay.train.randomness import key
from assay.tune import trial as trials
from assay.tune.trial import WEIGHTS, Here, TrialAssignment
from assay.workers.arrive import Arrival
from tests.support.searching import config, search
from tests.support.tiny_task import Config, Task, source

EPOCHS = 3
SOURCES = {split: source(Config(), None, split) for split in ("train", "val")}


def experiment(lr: float) -> ExperimentConfig:
    train = {"epochs": EPOCHS, "batch_size": 4, "workers": 0, "checkpoint_seconds": 0}
    optimizer = {"name": "sgd", "lr": lr, "schedule": "constant", "warmup": 0}
    plain = {"task": Config(dropout=0), "data": "points", "seed": 5, "optimizer": optimizer, "train": train}
    return ExperimentConfig.model_validate(plain)


def training(settings: ExperimentConfig, context: LocalContext) -> Training:
    torch.manual_seed(key(settings.seed, "init"))
    return Training(Task.build(settings, None, context), SOURCES, settings, context)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "arrive", lambda own, log: Arrival(experiment(own.config["lr"]), cast("Dataset", None)))
    monkeypatch.setattr(trials, "require_inputs", lambda own, config: None)
    monkeypatch.setattr(trials, "prepare", lambda settings, dataset, context: training(settings, context))


def trained(folder: Path, lr: float, until: int, parent: Path | None = None, keep: bool = False) -> dict[str, Any]:
    """The last report of a trial."""
    folder.mkdir(parents=True)
    plain = {
        "run_id": "r", "config": {"lr": lr}, "project": "", "dataset_hash": "", "folder": str(folder), "threads": 1,
        "gpu": False, "inputs": {},
    }  # fmt: skip
    runner = Here(TrialAssignment(plain, 0, until, parent=None if parent is None else str(parent), keep=keep))
    report = runner.advance()
    runner.close()
    assert report["done"]
    return report


def assert_reported_is_kept(folder: Path, report: dict[str, Any]) -> None:
    weights = load_file(folder / WEIGHTS)
    assert weights_sha256(weights) == report["outcome"]["weights_sha256"]
    context = LocalContext(folder, torch.device("cpu"), 1)
    task = Task.build(experiment(0.1), None, context)
    task.load_state_dict(weights)
    assert evaluate(task, SOURCES["val"], "val", 4, context)[0] == pytest.approx(report["metrics"], rel=1e-6)


def test_a_population_keeps_what_it_reports(tmp_path: Path) -> None:
    space = {"optimizer.lr": {"loguniform": [5e-3, 0.06]}}  # so high that the last epoch is often not the best
    begun = search(config("pbt", space, population=4, interval=1, objectives={"val/loss": "min"}), epochs=EPOCHS)
    losses: dict[int, float] = {}
    worse = 0
    while (trial := begun.next()) is not None:
        folder = tmp_path / str(trial.number)
        parent = None if trial.parent is None else tmp_path / str(trial.parent)
        report = trained(folder, trial.values["optimizer.lr"], trial.epochs, parent, keep=True)
        assert_reported_is_kept(folder, report)
        losses[trial.number] = report["metrics"]["val/loss"]
        worse += trial.parent is not None and losses[trial.number] > losses[trial.parent]
        begun.report(trial.number, report["epoch"], report["metrics"])
        begun.end(trial.number, "finished", report["metrics"], outcome=report["outcome"])
    assert len(losses) == 12
    assert worse > 0, "some last state must be worse than its parent's, else this shows nothing"


def test_other_trials_keep_their_best_epoch_and_report_it(tmp_path: Path) -> None:
    for number, lr in enumerate((0.02, 0.06)):
        report = trained(tmp_path / str(number), lr, EPOCHS)
        assert_reported_is_kept(tmp_path / str(number), report)
