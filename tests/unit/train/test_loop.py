"""Killed, stopped and resumed anywhere, a run ends with the same bits and the same record as one left alone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.config.experiment import ExperimentConfig
from assay.errors import WorkError
from assay.task import Picture
from assay.train import loop, pulse
from assay.train.checkpoint import weights_sha256
from assay.train.context import LocalContext
from assay.train.folder import PICTURES, SPOOL, STOP
from assay.train.loop import Outcome, evaluate, train
from assay.train.spool import read_spool
from tests.support.ranks import Group, ThreadContext
from tests.support.tiny_runs import (
    CPU,
    EPOCHS,
    SOURCES,
    STEPS,
    TOTAL,
    Killed,
    attempt,
    config,
    dying_at,
    same,
    spooled,
    stopping_at,
)
from tests.support.tiny_task import Points, Task

pytestmark = pytest.mark.usefixtures("agreeing_at_every_step")


def test_a_run_learns_and_records_everything(whole: tuple[Outcome, list[tuple[int, str, float]]]) -> None:
    outcome, rows = whole
    assert outcome.finished
    assert (outcome.steps, outcome.trained_steps, outcome.resumed_from) == (TOTAL, TOTAL, None)
    assert outcome.weights_sha256 == weights_sha256(outcome.weights)
    names = {name for _, name, _ in rows}
    assert names == {"train/loss", "train/doubled", "val/loss", "val/above"}
    losses = [value for _, name, value in rows if name == "train/loss"]
    assert losses[-1] < 0.7 * losses[0]
    assert [step for step, name, _ in rows if name == "val/loss"] == [6, 12, 18]
    assert [step for step, name, _ in rows if name == "train/loss"] == list(range(3, TOTAL + 1, 3))
    assert len({(step, name) for step, name, _ in rows}) == len(rows)


def test_time_is_recorded_each_epoch(tmp_path: Path) -> None:
    attempt(tmp_path, config())
    times = [r.metrics for r, _ in read_spool(tmp_path / SPOOL, 0) if "time/epoch_seconds" in r.metrics]
    assert len(times) == EPOCHS
    assert all(m["time/samples_per_second"] * m["time/epoch_seconds"] == pytest.approx(24) for m in times)


def test_the_same_again_gives_the_same_and_another_seed_does_not(tmp_path: Path, whole: Any) -> None:
    settings = config()
    assert same(attempt(tmp_path / "a", settings), whole[0])
    other = settings.model_copy(update={"seed": 6})
    assert attempt(tmp_path / "b", other).weights_sha256 != whole[0].weights_sha256


@pytest.mark.parametrize("step", range(TOTAL))
def test_killed_at_any_step(tmp_path: Path, whole: Any, step: int) -> None:
    with pytest.raises(Killed):
        attempt(tmp_path, config(), dying_at(step))
    outcome = attempt(tmp_path, config())
    assert same(outcome, whole[0])
    assert outcome.resumed_from == (step or None)
    assert outcome.trained_steps == TOTAL - step
    assert spooled(tmp_path) == whole[1]


@pytest.mark.parametrize("accumulate", [2, 4, 5])
def test_killed_in_the_middle_of_an_accumulation(tmp_path: Path, accumulate: int) -> None:
    settings = config(accumulate=accumulate, clip=1.0)
    expected = attempt(tmp_path / "whole", settings)
    for died in (3, 4, 2, 1, 3):  # steps after each resume: 3, 7, 9, 10, 13
        with pytest.raises(Killed):
            attempt(tmp_path / "killed", settings, dying_at(died))
    assert same(attempt(tmp_path / "killed", settings), expected)
    assert spooled(tmp_path / "killed") == spooled(tmp_path / "whole")


def test_killed_with_checkpoints_far_apart(tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a resumed run computes a second time is the same and is recorded once."""
    agree = pulse.Pulse.agree
    calls = iter(range(1000))
    monkeypatch.setattr(pulse.Pulse, "agree", lambda self: (agree(self)[0], next(calls) % 5 == 3))
    for died in (6, 9, 4):
        with pytest.raises(Killed):
            attempt(tmp_path, config(), dying_at(died))
    assert same(attempt(tmp_path, config()), whole[0])
    assert spooled(tmp_path) == whole[1]


@pytest.mark.parametrize("step", [0, 2, 5, 6, 11, 16])
def test_stopped_saved_and_continued(tmp_path: Path, whole: Any, step: int) -> None:
    slow = config(checkpoint_seconds=1000)
    stopped = attempt(tmp_path, slow, stopping_at(tmp_path, step))
    assert not stopped.finished
    assert stopped.steps == step + 1
    (tmp_path / STOP).unlink()
    outcome = attempt(tmp_path, slow)
    assert same(outcome, whole[0])
    assert (outcome.resumed_from, outcome.trained_steps) == (step + 1, TOTAL - step - 1)
    assert spooled(tmp_path) == whole[1]


def test_a_stop_in_the_last_step_leaves_the_evaluation_to_the_next(tmp_path: Path, whole: Any) -> None:
    stopped = attempt(tmp_path, config(), stopping_at(tmp_path, TOTAL - 1))
    assert (stopped.finished, stopped.steps) == (False, TOTAL)
    (tmp_path / STOP).unlink()
    assert same(attempt(tmp_path, config()), whole[0])
    assert spooled(tmp_path) == whole[1]


def test_a_finished_run_gives_its_outcome_again(tmp_path: Path, whole: Any) -> None:
    attempt(tmp_path, config())
    again = attempt(tmp_path, config())
    assert same(again, whole[0])
    assert again.trained_steps == 0


def test_a_damaged_checkpoint_costs_time_and_nothing_else(tmp_path: Path, whole: Any) -> None:
    with pytest.raises(Killed):
        attempt(tmp_path, config(), dying_at(9))
    newest = max((tmp_path / "checkpoints").iterdir()) / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    outcome = attempt(tmp_path, config())
    assert outcome.resumed_from == 8
    assert same(outcome, whole[0])
    assert spooled(tmp_path) == whole[1]
    assert str(newest) in (tmp_path / "told.log").read_text()


def test_samples_loaded_by_threads_give_the_same(tmp_path: Path, whole: Any) -> None:
    class Streamed(Points):
        in_memory = False

    sources = {"train": Streamed("train", 26), "val": Streamed("val", 10)}
    assert same(attempt(tmp_path, config(), sources=sources), whole[0])


@pytest.mark.parametrize("epochs_of_one_step", [False, True])
def test_checkpoints_are_as_often_as_asked(tmp_path: Path, epochs_of_one_step: bool) -> None:
    """Also where each step ends an epoch: the clock must not be set back by a save that did not happen."""
    settings = config(batch_size=26 if epochs_of_one_step else 4, epochs=6, checkpoint_seconds=0.03)
    newest: list[int] = []

    def before(done: int) -> None:
        time.sleep(0.02)
        newest.append(max((int(p.name[5:]) for p in (tmp_path / "checkpoints").glob("step-*")), default=0))

    attempt(tmp_path, settings, before)
    assert max(done - saved for done, saved in enumerate(newest)) <= 3


def test_checkpoints_are_rare_where_asked(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        attempt(tmp_path, config(checkpoint_seconds=1000), dying_at(TOTAL - 1))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("step", [0, 3, 4, 5])
@pytest.mark.parametrize(("where", "accumulate"), [("loss", 1), ("loss", 6), ("gradient", 1)])
def test_a_run_that_diverges_is_stopped_and_nothing_of_it_is_saved(
    tmp_path: Path, step: int, where: str, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "RECORDS_PER_EPOCH", 1)  # the loss is looked at once in 6 steps
    settings = config(accumulate=accumulate)
    context = LocalContext(tmp_path, CPU, 1)
    torch.manual_seed(0)
    task = Task.build(settings, None, context)

    def before(done: int) -> None:
        if done == step and where == "loss":
            task.spoil = math.nan
        elif done == step:
            task.network[0].weight.register_hook(lambda gradient: gradient * math.nan)

    task.before = before
    with pytest.raises(WorkError, match=r"became nan at or shortly before step \d+\. Lower optimizer\.lr"):
        train(task, SOURCES, settings, context)
    context.close()
    found = context.checkpoints.load()
    assert (found is None) is (step == 0)
    if found is not None:
        saved = [t for part in ("weights", "best") for t in found[1][part].values()]
        saved += [gradient for gradients in found[1]["engine"]["gradients"].values() for gradient in gradients]
        assert all(t.isfinite().all() for t in saved)
        assert found[0] == step
    if (tmp_path / SPOOL).exists():
        assert all(math.isfinite(value) for _, _, value in spooled(tmp_path))


class Scripted(Task):
    """Its headline is what the test says, epoch by epoch."""

    script: tuple[float, ...] = ()

    def summarize(self, tables: Mapping[str, Tensor]) -> Mapping[str, float]:
        return {"score": self.script[self.done // STEPS - 1]}


@pytest.mark.parametrize(
    ("maximize", "script", "best"),
    [
        (True, (0.5, 0.9, 0.7), 1),
        (True, (0.9, 0.5, 0.9), 2),
        (True, (0.9, 0.5, 0.7), 0),
        (False, (0.5, 0.2, 0.7), 1),
        (False, (0.2, 0.2, 0.7), 1),
    ],
)
def test_the_weights_are_those_of_the_best_epoch_and_of_equals_the_later(
    tmp_path: Path, maximize: bool, script: tuple[float, ...], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "script", script)
    judged = config({"scored": "score", "maximize": maximize})
    context = LocalContext(tmp_path, CPU, 1)
    torch.manual_seed(0)
    task = Scripted.build(judged, None, context)
    at_start: list[str] = []  # of each epoch, and of the end
    task.before = lambda done: at_start.append(weights_sha256(task.state_dict())) if done % STEPS == 0 else None
    outcome = train(task, SOURCES, judged, context)
    context.close()
    ends = [*at_start[1:], weights_sha256(task.state_dict())]
    assert outcome.weights_sha256 == ends[best]
    assert outcome.metrics["val/score"] == script[best]


def test_a_headline_that_is_not_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"does not report its headline val/accuracy; it reports val/loss, val/above"):
        attempt(tmp_path, config({"scored": "accuracy"}))


def test_pictures_are_drawn_from_the_tables_and_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pictures(self: Task, tables: Mapping[str, Tensor], source: Any) -> list[Picture]:
        return [Picture("signs", b"png", [{"total": int(tables["signs"].sum()), "of": len(source)}])]

    monkeypatch.setattr(Task, "pictures", pictures)
    context = LocalContext(tmp_path, CPU, 1)
    _, (picture,) = evaluate(Task.build(config(), None, context), SOURCES["val"], "val", 4, context)
    assert picture.table == [{"total": 10, "of": 10}]
    monkeypatch.setattr(Task, "watched", True)
    attempt(tmp_path, config())
    kept = sorted(path.name for path in (tmp_path / PICTURES).iterdir())
    assert kept == [f"step-{STEPS * epoch:08d}-signs.png" for epoch in (1, 2, 3)]


TWO = config(task={"dropout": 0, "normalize": False})  # torch's generator is one for all threads of a process


def both(folder: Path, settings: ExperimentConfig, died: int | None = None, stop: int | None = None) -> list[Outcome]:
    """A run of two workers."""
    group = Group(2)
    torch.manual_seed(1)
    first = Task.build(settings, None, LocalContext(folder, CPU, 1)).state_dict()

    def body(rank: int) -> Outcome:
        context = ThreadContext(folder, group, rank)
        task = Task.build(settings, None, context)
        task.load_state_dict(first)

        def before(done: int) -> None:
            if done == died:
                raise Killed
            if done == stop and rank == 1:
                (folder / STOP).touch()

        task.before = before
        try:
            return train(task, SOURCES, settings, context)
        finally:
            context.close()

    return group.run(body)


def test_two_workers_end_alike_and_as_one_worker_would(tmp_path: Path) -> None:
    one, other = both(tmp_path / "two", TWO)
    assert one.weights_sha256 == other.weights_sha256
    assert dict(one.metrics) == dict(other.metrics)
    torch.manual_seed(1)
    context = LocalContext(tmp_path / "one", CPU, 1)
    alone = train(Task.build(TWO, None, context), SOURCES, TWO, context)
    context.close()
    for name, tensor in alone.weights.items():
        torch.testing.assert_close(tensor, one.weights[name], rtol=1e-4, atol=1e-6)
    for (step, name, value), (s, n, v) in zip(spooled(tmp_path / "one"), spooled(tmp_path / "two"), strict=True):
        assert (step, name) == (s, n)
        assert value == pytest.approx(v, rel=1e-4)


@pytest.mark.parametrize(("died", "stop"), [(1, None), (6, None), (9, None), (None, 3), (None, 5), (None, 10)])
def test_two_workers_resume_with_the_same_bits(tmp_path: Path, died: int | None, stop: int | None) -> None:
    expected = both(tmp_path / "whole", TWO)[0]
    folder = tmp_path / "broken"
    if died is not None:
        with pytest.raises(Killed):
            both(folder, TWO, died=died)
    else:
        outcomes = both(folder, TWO, stop=stop)
        assert [outcome.finished for outcome in outcomes] == [False, False]
        assert len({outcome.steps for outcome in outcomes}) == 1
        (folder / STOP).unlink()
    assert same(both(folder, TWO)[0], expected)
    for one, other in zip(spooled(folder), spooled(tmp_path / "whole"), strict=True):
        assert one[:2] == other[:2]
        assert one[2] == pytest.approx(other[2], rel=1e-12)  # sums are added in another order around a save
