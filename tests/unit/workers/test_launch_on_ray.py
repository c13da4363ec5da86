"""A training and a search on a Ray that dies: the same loop for both, with a Ray that the test plays."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.errors import Interrupted
from assay.files import write_json
from assay.settings import Settings
from assay.train.folder import OUTCOME, OUTCOME_NEEDS, SPOOL, STOP
from assay.tune import executor
from assay.workers import deaths, launch, on_ray
from assay.workers.assignment import Assignment
from assay.workers.plan import Plan
from assay.workers.ray_session import RayDied


class FakeRay:
    """What the loop sees of Ray. `die` ends it: what works on it fails with its next call."""

    def __init__(self) -> None:
        self.starts = 0
        self.gone = threading.Event()

    @contextmanager
    def running(self, *_: Any) -> Iterator[None]:
        self.starts += 1
        self.gone.clear()
        try:
            yield
        finally:
            self.gone.set()

    def die(self) -> None:
        self.gone.set()

    def alive(self) -> bool:
        return not self.gone.is_set()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    played = FakeRay()
    monkeypatch.setattr(on_ray, "ray_running", played.running)
    monkeypatch.setattr(on_ray, "ray_alive", played.alive)
    monkeypatch.setattr(on_ray, "ray_stopped", lambda: False)
    monkeypatch.setattr(launch, "ray_alive", played.alive)
    return played


def assignment(folder: Path) -> Assignment:
    return Assignment("r1", {}, "", "", str(folder), 1, False, {})


def trained(folder: Path, lines: list[str]) -> dict[str, Any]:
    settings = Settings(project=folder)
    return launch.launch(assignment(folder), Plan(2, "cpu", 1), settings, lambda: None, lines.append)


def progress(folder: Path) -> None:
    with (folder / SPOOL).open("a") as spool:
        spool.write("{}\n")


def test_a_training_goes_on_on_a_new_ray(ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths, "pause", lambda *_: None)
    attempts: list[str] = []
    outcome = dict.fromkeys(OUTCOME_NEEDS, 1)

    def fit(one: Assignment, *_: Any) -> None:
        attempts.append(one.attempt)
        progress(tmp_path)
        if len(attempts) == 2:
            raise RuntimeError("The worker has died")  # on a Ray that lives
        if len(attempts) <= 8:
            ray.die()
            raise RuntimeError("The node has died")
        write_json(tmp_path / OUTCOME, outcome)

    monkeypatch.setattr(launch, "_fit", fit)
    lines: list[str] = []
    assert trained(tmp_path, lines) == outcome
    assert (len(set(attempts)), ray.starts) == (9, 8)
    assert sum(line.startswith("Ray died (its servers are gone)") for line in lines) == 7
    assert sum(line.startswith("a worker died (The worker has died)") for line in lines) == 1


def test_ctrl_c_between_two_attempts_ends_the_training(
    ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("The worker has died")

    monkeypatch.setattr(launch, "_fit", fit)
    lines: list[str] = []
    with pytest.raises(Interrupted, match="to continue, run the same command"):
        trained(tmp_path, lines)
    assert "SIGINT: saving a checkpoint and stopping; repeat to quit at once" in lines


def test_a_second_ctrl_c_quits_at_once(ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while not (tmp_path / STOP).exists():
            pass
        os.kill(os.getpid(), signal.SIGINT)
        ray.gone.wait()

    monkeypatch.setattr(launch, "_fit", fit)
    monkeypatch.setattr(launch, "quit_at_once", quit_softly)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, [])


def quit_softly() -> None:
    """What `os._exit` would do, without ending the tests."""
    raise KeyboardInterrupt


def test_a_search_goes_on_on_a_new_ray(ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths, "pause", lambda *_: None)
    ran: list[bool] = []
    released: list[int] = []
    search = SimpleNamespace(ended=[], epochs_trained=0.0, running=[SimpleNamespace(number=4)], release=released.append)
    live = SimpleNamespace(
        folder=tmp_path,
        search=search,
        plan=SimpleNamespace(parallel=2, device="cpu", threads=1),
        stop_requested=lambda: False,
        trial_folder=lambda trial: tmp_path / str(trial.number),
    )

    def run_trials(_: Any, over: threading.Event) -> None:
        ran.append(over.is_set())
        if len(ran) == 1:
            ray.die()
            assert over.wait(30), "whoever works on a dead Ray is told"
            raise RayDied("its servers are gone")

    monkeypatch.setattr("assay.tune.ray_tune.run_trials", run_trials)
    lines: list[str] = []
    executor.execute(live, Settings(project=tmp_path), lambda: None, lines.append)  # type: ignore[arg-type]
    assert ran == [False, False]
    assert released == [4, 4]
    assert "Ray died (its servers are gone); continuing from the last checkpoint in 1 s" in lines
