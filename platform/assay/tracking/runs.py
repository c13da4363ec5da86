"""The life of a run: created or continued under a lock, watched while it lives, never left saying RUNNING."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from assay.errors import InputError
from assay.settings import Settings
from assay.tracking.provenance import PREFIX, Provenance
from assay.tracking.recorder import ship
from assay.tracking.tracker import Tracker
from assay.train.folder import LOCK

CLAIMS = ".claims.lock"


@dataclass(frozen=True)
class Claim:
    """A run that this process may work on, or one that is finished."""

    run_id: str
    folder: Path
    finished: bool


@contextmanager
def claim(
    settings: Settings,
    tracker: Tracker,
    experiment: str,
    provenance: Provenance,
    resume: str | None,
    new: bool,
    reopen: bool = False,
) -> Iterator[Claim]:
    """Find the run of these inputs, or create it; hold it against other processes until the end of the block.

    Args:
        reopen: go on with it even if it is finished, as a search does whose budget was raised.

    Raises:
        InputError: another process works on it.
    """
    settings.runs.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.runs / CLAIMS):
        fingerprint = provenance.tags["fingerprint"]
        run = tracker.get(resume) if resume else None if new else tracker.find(experiment, fingerprint, provenance.kind)
        if run is not None:
            run_id, finished = run.info.run_id, run.info.status == "FINISHED" and not reopen
        else:
            run_id, finished = tracker.create(experiment, provenance), False
        folder = settings.runs / run_id
        folder.mkdir(parents=True, exist_ok=True)
        lock = None if finished else _lock(folder)
        if lock is None and not finished:
            doing = "worked on" if provenance.kind == "search" else "trained"
            raise InputError(
                f"{provenance.kind} {run_id} is being {doing} by another process; wait for it, or use --new"
            )
    if lock is None:
        yield Claim(run_id, folder, True)
        return
    try:
        tracker.set_status(run_id, "RUNNING")
        with watchdog(settings, run_id):
            yield Claim(run_id, folder, False)
    finally:
        lock.release()


def reap(settings: Settings, tracker: Tracker) -> list[str]:
    """Mark as KILLED the runs that say RUNNING though no process holds them, and ship the metrics they left."""
    if not settings.runs.exists():
        return []
    dead = []
    with FileLock(settings.runs / CLAIMS):
        for run in tracker.unfinished():
            run_id = run.info.run_id
            parent = run.data.tags.get("mlflow.parentRunId")
            folder = settings.runs / (parent or run_id)
            if PREFIX + "fingerprint" not in run.data.tags or not folder.exists():
                continue  # another program's run, or another machine's
            lock = _lock(folder)
            if lock is None:
                continue
            try:
                if parent is None:
                    ship(tracker, run_id, folder)
                tracker.set_status(run_id, "KILLED", "its process died; the same command continues it")
                dead.append(run_id)
            finally:
                lock.release()
    return dead


@contextmanager
def watchdog(settings: Settings, run_id: str) -> Iterator[None]:
    """A sleeping child that marks the run KILLED if this process dies without a word, even by `kill -9`."""
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "assay.tracking.watchdog", str(settings.root), run_id],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(reading)
    try:
        yield
    finally:
        with suppress(BrokenPipeError):  # somebody killed the watchdog
            os.write(writing, b"done")
        os.close(writing)
        child.wait()


def _lock(folder: Path) -> FileLock | None:
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
