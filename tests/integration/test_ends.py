"""How a training ends when somebody ends it: its reader leaves, its terminal closes, Ctrl-C once and twice."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from assay.errors import Interrupted, Unavailable
from assay.tracking.recorder import Recorder
from assay.tracking.tracker import Tracker
from assay.usecases import train as train_module
from tests.conftest import BIN, Project
from tests.integration.test_train import runs, until, wait_for_status

LONG = ("train", "digits", "--workers", "0", "--set", "train.epochs=200")
SHORT = (*LONG[:-1], "train.epochs=3")


def started(project: Project, *words: str, **more: object) -> subprocess.Popen[bytes]:
    """The real program in a session of its own."""
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [BIN / "assay", *words], cwd=project.root, env=project.environment, start_new_session=True, **more
    )


def training(project: Project, child: subprocess.Popen[bytes], meanwhile: Callable[[], None] = lambda: None) -> Path:
    """The folder of the run, once it trains."""

    def trains() -> bool:
        meanwhile()
        return any("train/loss" in path.read_text() for path in spools(project))

    until(child, trains)
    return spools(project)[0].parent


def spools(project: Project) -> list[Path]:
    return list(project.root.glob(".assay/runs/*/spool.jsonl"))


def test_a_reader_that_leaves_stops_no_training(project: Project) -> None:
    with started(project, *SHORT, "--json", stdout=-1, stderr=-1) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stderr.close()
        child.stdout.close()
        assert child.wait(240) == 0
    assert runs(project) == ["FINISHED"]


@pytest.mark.parametrize(
    ("end", "twice"), [(signal.SIGINT, True), pytest.param(signal.SIGTERM, False, marks=pytest.mark.thorough)]
)
def test_a_signal_saves_and_a_second_one_ends_at_once(project: Project, end: signal.Signals, twice: bool) -> None:
    with started(project, *LONG, stdout=-1, stderr=-1) as child:
        folder = training(project, child)
        child.send_signal(end)
        if twice:
            until(child, (folder / "stop").exists)
            child.send_signal(end)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 130
        assert b"Traceback" not in errors
        assert b"terminate called" not in errors
    wait_for_status(project, folder.name, "KILLED")
    assert twice or list((folder / "checkpoints").glob("step-*"))


def writer(child: subprocess.Popen[bytes]) -> psutil.Process:
    """The process that makes a training's calls of MLflow."""
    below = psutil.Process(child.pid).children()
    return next(found for found in below if "assay.tracking.process" in found.cmdline())


@pytest.mark.parametrize("twice", [False, True])
def test_a_stopped_process_that_writes_to_mlflow_keeps_nobody_from_ending(project: Project, twice: bool) -> None:
    with started(project, *LONG, stdout=-1, stderr=-1) as child:
        folder = training(project, child)
        stopped = writer(child)
        stopped.suspend()
        child.send_signal(signal.SIGINT)
        if twice:
            until(child, lambda: (folder / "outcome.json").exists())
            child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
        assert child.returncode == 130
        assert b"Traceback" not in errors
    stopped.wait(10)
    wait_for_status(project, folder.name, "KILLED")
    assert list((folder / "checkpoints").glob("step-*"))


def test_who_was_stopped_and_saved_says_so_also_if_the_tracking_store_is_silent(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: Any) -> None:
        raise Unavailable("the tracking store does not answer")

    def stopped(*_: Any) -> dict[str, Any]:
        return {"finished": False, "steps": 7}

    monkeypatch.setattr(train_module, "launch", stopped)
    monkeypatch.setattr(Recorder, "close", silent)
    monkeypatch.setattr(Tracker, "set_status", silent)
    with pytest.raises(Interrupted, match=r"stopped and saved at step 7; .*\(the tracking store does not answer\)"):
        project.train("digits", "train.workers=0")
    words = [(child, child.cmdline()) for child in psutil.Process().children()]
    (watchdog,) = [child for child, own in words if "assay.tracking.watchdog" in own and str(project.root) in own]
    watchdog.kill()  # else it would mark the run KILLED once this process has ended


def test_a_killed_process_that_writes_to_mlflow_costs_nothing(project: Project) -> None:
    with started(project, *SHORT, stdout=-1, stderr=-1) as child:
        folder = training(project, child)
        writer(child).kill()
        assert child.wait(240) == 0
    assert runs(project) == ["FINISHED"]
    curves = Tracker(project.settings).history(folder.name)
    assert len({(name, step) for name, _, _, step in curves}) == len(curves)


def closed_terminal(project: Project, *words: str) -> Path:
    """The run of a training whose terminal was closed while it trained."""
    ours, theirs = pty.openpty()
    with started(project, *words, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=terminal(theirs)) as child:
        os.close(theirs)
        os.set_blocking(ours, False)
        folder = training(project, child, lambda: drain(ours))
        os.close(ours)
        assert child.wait(120) == 130
    return folder


def drain(descriptor: int) -> None:
    """Read what a terminal shows: a full one would hold up the program."""
    with suppress(BlockingIOError):
        while os.read(descriptor, 65536):
            pass


def terminal(descriptor: int) -> Callable[[], None]:
    """Makes it the terminal of a program, which hears its end even if these tests run under `nohup`."""
    import fcntl
    import termios

    def become() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)

    return become


def test_a_closed_terminal_saves(project: Project) -> None:
    folder = closed_terminal(project, *LONG)
    assert runs(project) == ["KILLED"]
    assert list((folder / "checkpoints").glob("step-*"))


@pytest.mark.thorough
def test_a_signal_to_the_whole_group_saves_on_workers_too(project: Project) -> None:
    """As `timeout` and service managers send it."""
    with started(project, *LONG[:3], "1", *LONG[4:], stderr=subprocess.PIPE) as child:
        folder = training(project, child)
        os.killpg(child.pid, signal.SIGTERM)
        _, errors = child.communicate(timeout=120)
    assert child.returncode == 130
    assert b"stopped and saved" in errors
    assert b"Ray died" not in errors
    assert runs(project) == ["KILLED"]
    assert list((folder / "checkpoints").glob("step-*"))


@pytest.mark.thorough
def test_a_closed_terminal_saves_on_workers_too(project: Project) -> None:
    """Ray's servers and workers must not go before the training has saved."""
    folder = closed_terminal(project, *LONG[:3], "1", *LONG[4:])
    assert runs(project) == ["KILLED"]
    assert list((folder / "checkpoints").glob("step-*"))
