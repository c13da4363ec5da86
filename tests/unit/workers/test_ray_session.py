"""A Ray that does not start, hangs or dies: every wait has a limit and hears the request to stop. No Ray is started."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray

from assay.errors import Interrupted, Unavailable, WorkError
from assay.settings import Settings
from assay.signals import handled_by
from assay.workers import deaths, on_ray, ray_private, ray_session
from assay.workers.deaths import LIVES, Deaths
from assay.workers.ray_session import STARTS, RayDied, ray_running

THREAD = "ray of a test"


def never() -> bool:
    return False


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a project whose Ray is what the test makes of `ray.init`. A real one that other tests share is left alone."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # put back at the end
    monkeypatch.setattr(ray, "is_initialized", never)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray_session, "listen_on_loopback_alone", lambda: None)
    monkeypatch.setattr(ray_session, "read_authentication_again", lambda: None)
    monkeypatch.setattr(ray_session, "THREAD", THREAD)
    monkeypatch.setattr(ray_session, "_processes", lambda folder: set())
    monkeypatch.setattr(deaths, "pause", lambda seconds, stopped: None)
    return Settings(project=tmp_path)


def failing(times: int) -> Any:
    left = itertools.count(times, -1)

    def init(*_: object, **__: object) -> None:
        if next(left) > 0:
            raise Exception("The current node timed out during startup.")  # as Ray does

    return init


def test_a_ray_that_does_not_start_is_started_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", failing(STARTS - 1))
    lines: list[str] = []
    with ray_running(settings, lines.append):
        pass
    again = "Ray did not start (The current node timed out during startup.); trying again"
    assert lines == ["starting Ray on this machine", *[again] * (STARTS - 1)]


def test_after_some_starts_it_is_said_in_a_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", failing(STARTS))
    with pytest.raises(Unavailable, match=f"did not start on this machine, {STARTS} times .The current node timed out"):
        ray_running(settings, lambda _: None).__enter__()


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    released = threading.Event()
    monkeypatch.setattr(ray, "init", lambda *_, **__: released.wait())
    monkeypatch.setattr(ray_session, "SHUTDOWN_SECONDS", 0.1)
    monkeypatch.setattr(ray_session, "no_shutdown_at_exit", lambda: None)
    yield
    released.set()
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(20)


@pytest.mark.usefixtures("hanging")
def test_a_start_that_hangs_has_a_limit(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "START_SECONDS", 0.1)
    with pytest.raises(Unavailable, match="Ray hangs in this process"):
        ray_running(settings, lambda _: None).__enter__()


@pytest.mark.usefixtures("hanging")
def test_a_cluster_that_is_silent_has_a_limit(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "START_SECONDS", 0.1)
    with pytest.raises(Unavailable):
        ray_running(settings.model_copy(update={"ray_address": "10.0.0.1:6379"}), lambda _: None).__enter__()


@pytest.mark.usefixtures("hanging")
def test_a_start_hears_the_request_to_stop(settings: Settings) -> None:
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        ray_running(settings, lambda _: None, lambda: next(asked, True)).__enter__()


def test_sigterm_is_heard_though_ray_takes_it_over(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's driver sets a handler of its own beneath Python, which prints a stack and ends the process."""
    libc, ignored = ctypes.CDLL(None), ctypes.c_void_p(1)
    monkeypatch.setattr(ray, "init", lambda *_, **__: libc.signal(int(signal.SIGTERM), ignored))
    heard: list[int] = []
    with handled_by(lambda number, _: heard.append(number)), ray_running(settings, lambda _: None):
        os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]


class Attempts:
    """Work that goes on until its Ray is gone, `dying` times, and then ends."""

    def __init__(self, dying: int) -> None:
        self.dying, self.begun = dying, 0
        self.overs: list[threading.Event] = []

    def __call__(self, over: threading.Event) -> AbstractContextManager[Any]:
        self.overs.append(over)
        self.begun += 1
        return nullcontext(over.wait if self.begun <= self.dying else lambda: None)

    def alive(self) -> bool:
        return self.begun > self.dying


def work(attempts: Attempts, settings: Settings, monkeypatch: pytest.MonkeyPatch, **ray_is: Any) -> list[str]:
    monkeypatch.setattr(ray, "init", lambda *_, **__: None)
    for name, value in {"ray_alive": attempts.alive, "ray_stopped": never, **ray_is}.items():
        monkeypatch.setattr(on_ray, name, value)
    lines: list[str] = []
    counted = Deaths(lambda: (0,), never)
    on_ray.on_ray(attempts, settings, settings.root, lambda: None, counted, lines.append)
    return lines


def test_work_goes_on_on_a_new_ray(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(LIVES - 1)
    lines = work(attempts, settings, monkeypatch)
    assert attempts.begun == LIVES
    assert all(over.is_set() for over in attempts.overs)
    assert "Ray died (its servers are gone); continuing from the last checkpoint in 1 s" in lines


def test_rays_that_die_without_progress_are_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkError, match=f"^Ray died {LIVES} times without progress; the last time: its servers"):
        work(Attempts(LIVES), settings, monkeypatch)


def test_a_stopped_ray_counts_as_dead_after_a_while(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "STOPPED_SECONDS", 0.1)
    attempts = Attempts(1)
    lines = work(attempts, settings, monkeypatch, ray_alive=lambda: True, ray_stopped=lambda: not attempts.alive())
    assert any("Ray died (its servers were stopped for 0 s)" in line for line in lines)


def test_a_cluster_that_is_gone_ends_the_work(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(on_ray, "GONE_SECONDS", 0.1)
    there = settings.model_copy(update={"ray_address": "127.0.0.1:6379"})
    with pytest.raises(Unavailable, match="Ray is gone; to continue from the last checkpoint, run the same command"):
        work(Attempts(1), there, monkeypatch, cluster_answers=never)


def test_a_failure_of_the_work_is_no_death(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise WorkError("the loss became nan")

    monkeypatch.setattr(ray, "init", lambda *_, **__: None)
    monkeypatch.setattr(on_ray, "ray_alive", lambda: True)
    monkeypatch.setattr(on_ray, "ray_stopped", never)
    with pytest.raises(WorkError, match="^the loss became nan$"):
        on_ray.on_ray(
            lambda _: nullcontext(fail), settings, settings.root, lambda: None, Deaths(lambda: (0,), never), print
        )


def test_a_process_without_ray_has_none_alive() -> None:
    assert not ray_private.ray_alive() or ray.is_initialized()
    assert issubclass(RayDied, Exception)
