"""A run may see any number of deaths, as long as it gets on between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.errors import Interrupted, WorkError
from assay.train.folder import CHECKPOINTS, SPOOL, STOP
from assay.workers import deaths, launch
from assay.workers.assignment import Assignment
from assay.workers.deaths import LIVES, Deaths


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time here."""
    seen: list[float] = []
    monkeypatch.setattr(deaths, "pause", lambda seconds, stopped: seen.append(seconds))
    return seen


def silent(_: str) -> None: ...


def test_deaths_count_since_the_last_progress(waits: list[float]) -> None:
    steps: Iterator[int] = iter([0, *range(1, 21), *[20] * LIVES])
    counted = Deaths(lambda: (next(steps),), lambda: False)
    for _ in range(20):
        counted.add("a worker", "a power cut", silent)
    assert waits[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    for _ in range(LIVES - 2):
        counted.add("a worker", "a power cut", silent)
    with pytest.raises(WorkError, match=f"^a worker died {LIVES} times without progress; the last time: a power cut$"):
        counted.add("a worker", "a power cut", silent)


def test_a_step_back_is_no_progress() -> None:
    reached = iter([(8, 100), (4, 100), (8, 100), (6, 100)])  # the newest checkpoint was damaged
    counted = Deaths(lambda: next(reached), lambda: False)
    counted.add("a worker", "x", silent)
    counted.add("a worker", "x", silent)
    with pytest.raises(WorkError):
        counted.add("a worker", "x", silent)


def test_a_wait_hears_the_request_to_stop() -> None:
    began = time.monotonic()
    asked = iter([False, False, True])
    with pytest.raises(Interrupted, match="to continue, run the same command"):
        deaths.hear(lambda: True)
    with pytest.MonkeyPatch.context() as patch:
        patch.undo()
        with pytest.raises(Interrupted):
            PAUSE(60, lambda: next(asked))
    assert time.monotonic() - began < 30


PAUSE = deaths.pause


def training(folder: Path, monkeypatch: pytest.MonkeyPatch, outcomes: list[int | None]) -> list[str]:
    """Train; each attempt dies after so many steps, None ends it. Returns what was logged."""
    left, lines = iter(outcomes), list[str]()

    def fit(*_: object) -> None:
        steps = next(left)
        if steps is None:
            return
        for _step in range(steps):
            with (folder / SPOOL).open("a") as spool:
                spool.write("{}\n")
        raise RuntimeError("The worker has died")

    monkeypatch.setattr(launch, "_fit", fit)
    monkeypatch.setattr(launch, "ray_alive", lambda: True)
    run = Assignment("r", {}, "", "", str(folder), 1, False, {})
    launch.train_on_ray(run, None, folder, lines.append, launch.deaths_of(folder), threading.Event())  # type: ignore[arg-type]
    return lines


def test_a_long_run_outlives_many_deaths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = training(tmp_path, monkeypatch, [1] * 10 + [None])
    assert len(lines) == 10
    assert lines[0] == "a worker died (The worker has died); continuing from the last checkpoint in 1 s"


def test_a_run_that_gets_nowhere_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkError, match="died 3 times without progress"):
        training(tmp_path, monkeypatch, [1, 0, 0, 0, None])


def test_a_checkpoint_is_progress(tmp_path: Path) -> None:
    counted = launch.deaths_of(tmp_path)
    for step in range(1, 10):
        (tmp_path / CHECKPOINTS / f"step-{step:010d}").mkdir(parents=True)
        counted.add("a worker", "x", silent)
    (tmp_path / STOP).touch()
    assert counted.stopped()
