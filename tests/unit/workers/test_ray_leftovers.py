"""A Ray session is dead when its process is, however old it is."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assay.owner import Owner
from assay.workers.ray_leftovers import clear_sessions, note_owner, own_sessions, processes_of

DAY = 24 * 3600
STAMP = "session_2026-11-22_04-40-48_470847"


def made(folder: Path, pid: int, owner: Owner | None = None, age: float = 2 * DAY) -> Path:
    session = folder / f"{STAMP}_{pid}"
    (session / "logs").mkdir(parents=True)
    if owner is not None:
        (session / "owner.json").write_text(owner.text())
    os.utime(session, (time.time() - age, time.time() - age))
    return session


@pytest.fixture
def gone() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


@contextmanager
def worker_of(session: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that logs into a session, as Ray's do."""
    with (session / "logs/worker.out").open("w") as log, subprocess.Popen(["sleep", "600"], stdout=log) as process:
        yield process
        process.kill()


def test_a_living_session_stays_however_old_it_is(tmp_path: Path) -> None:
    session = made(tmp_path, os.getpid(), Owner.here())
    clear_sessions(tmp_path)
    assert session.exists()


def test_a_session_of_another_machine_stays(tmp_path: Path, gone: int) -> None:
    session = made(tmp_path, gone, dataclasses.replace(Owner.here(), machine="another boot", pid=gone))
    clear_sessions(tmp_path)
    assert session.exists()


def test_a_dead_session_goes_however_young_with_what_is_left_of_it(tmp_path: Path, gone: int) -> None:
    owner = dataclasses.replace(Owner.here(), pid=gone)
    session = made(tmp_path, gone, owner, age=0)
    with worker_of(session) as worker:
        clear_sessions(tmp_path)
        assert worker.poll() is not None
    assert not session.exists()


def test_an_id_that_is_used_again_makes_no_session_live(tmp_path: Path) -> None:
    session = made(tmp_path, os.getpid(), dataclasses.replace(Owner.here(), started=1))
    clear_sessions(tmp_path)
    assert not session.exists()


def test_a_session_without_a_note_lives_with_its_process_and_its_workers(tmp_path: Path, gone: int) -> None:
    mine, users = made(tmp_path / "mine", os.getpid()), made(tmp_path / "users", gone)
    clear_sessions(tmp_path / "mine")
    assert mine.exists()
    with worker_of(users) as worker:
        clear_sessions(tmp_path / "users")
        assert users.exists()
        assert {process.pid for process in processes_of([users])} == {worker.pid}
    clear_sessions(tmp_path / "users")
    assert not users.exists()


def test_the_note_is_of_this_process_and_in_its_sessions_alone(tmp_path: Path, gone: int) -> None:
    mine, other = made(tmp_path, os.getpid()), made(tmp_path, gone)
    note_owner(tmp_path)
    assert own_sessions(tmp_path) == [mine]
    assert Owner.parse((mine / "owner.json").read_bytes()) == Owner.here()
    assert not (other / "owner.json").exists()
