"""People see how far a run is, in the steps that its loader counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from assay import progress
from assay.config.experiment import ExperimentConfig
from assay.report.search import SearchSnapshot
from assay.train.context import LocalContext
from assay.train.folder import LOG, SPOOL, STEPS
from assay.train.loop import train
from assay.train.spool import Spool
from assay.usecases.helpers.search_progress import SearchProgress
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


@pytest.mark.parametrize("steps", [b"", b"\xff\xfe", b"many", b"-3", None])
def test_an_unreadable_count_of_steps_is_unknown_until_the_next_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: bytes | None
) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    said: list[str] = []
    shown = TrainingProgress(said.append)
    spool = Spool(tmp_path / SPOOL)
    with shown.following(tmp_path):
        if steps is not None:
            (tmp_path / STEPS).write_bytes(steps)
        for step in (1, 2):
            spool.append(step, {"train/loss": 0.5})
            shown.tick()
            (tmp_path / STEPS).write_text("18")
    spool.close()
    assert [line.partition(",")[0] for line in said] == ["step 1 of ?", "step 2 of 18"]


def test_no_display_ends_a_training(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / SPOOL).mkdir()
    shown = TrainingProgress(said.append)
    with shown.following(tmp_path):
        shown.tick()
        shown.tick()
    assert len(said) == 1
    assert "cannot always be shown (IsADirectoryError: " in said[0]


def test_no_display_ends_a_search() -> None:
    def take() -> SearchSnapshot:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    said: list[str] = []
    shown = SearchProgress(said.append)
    with shown.following(take):
        shown.tick()
    assert len(said) == 1


def test_lines_for_people_are_shown_after_somebody_cut_their_file(tmp_path: Path) -> None:
    said: list[str] = []
    shown = TrainingProgress(said.append)
    with shown.following(tmp_path):
        for line in ("warning: a long first line\n", "second\n"):
            (tmp_path / LOG).write_text(line)
            shown.tick()
    assert said == ["warning: a long first line", "second"]
