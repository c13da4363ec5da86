"""The life of a run: created or continued under a lock, watched while it lives, never left RUNNING."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from assay.errors import InputError, Interrupted, Unavailable
from assay.settings import Settings
from assay.storage.attempts import pull_metrics
from assay.storage.lease import Lease, TakenOver, is_dead, turn
from assay.storage.object_store import ObjectStore
from assay.tracking.provenance import PREFIX, Provenance
from assay.tracking.recorder import ship
from assay.tracking.tracker import Tracker
from assay.train.folder import LOCK, STOP

CLAIMS = ".claims.lock"


@dataclass(frozen=True)
class Claim:
    """A run that this process may work on, or one that is finished. `lease` holds it if it is in object storage."""

    run_id: str
    folder: Path
    finished: bool
    lease: Lease | None = None


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
    """Find the run of these inputs, or create it; lock it against other processes until the end of the block.

    Args:
        reopen: continue it even if it is finished, as a search whose budget was raised.

    Raises:
        InputError: another process is working on it.
    """
    settings.runs.mkdir(parents=True, exist_ok=True)
    fingerprint = provenance.tags["fingerprint"]
    with FileLock(settings.runs / CLAIMS), _turn(settings, fingerprint):
        run = tracker.get(resume) if resume else None if new else tracker.find(experiment, fingerprint, provenance.kind)
        if run is not None:
            run_id, finished = run.info.run_id, run.info.status == "FINISHED" and not reopen
            if not finished:
                tracker.complete(run_id, provenance)
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
        with _leased(settings, run_id, folder) as lease:
            tracker.set_status(run_id, "RUNNING")
            with watchdog(settings, run_id):
                yield Claim(run_id, folder, False, lease)
    finally:
        lock.release()


@contextmanager
def _turn(settings: Settings, fingerprint: str) -> Iterator[None]:
    """Let one machine at a time look for the run of these inputs and create it, if runs are kept in object storage."""
    if settings.remote_runs is None:
        yield
        return
    with turn(ObjectStore(settings.remote_runs).below(f"claims/{fingerprint}")):
        yield


@contextmanager
def _leased(settings: Settings, run_id: str, folder: Path) -> Iterator[Lease | None]:
    """Lock a run against other machines too, if runs are kept in object storage."""
    if settings.remote_runs is None:
        yield None
        return
    lease = Lease(ObjectStore(settings.remote_runs).below(run_id), (folder / STOP).touch)
    if not lease.take():
        raise InputError(f"run {run_id} is being trained by another process; wait for it, or use --new")
    try:
        yield lease
    finally:
        lease.release()


@contextmanager
def status_as_earned(run_id: str, tracker: Tracker) -> Iterator[None]:
    """Set a run to FAILED or KILLED, with the reason, if the block fails or is interrupted."""
    try:
        yield
    except TakenOver:  # its record is another process's now
        raise
    except BaseException as error:
        failed = isinstance(error, Exception) and not isinstance(error, Interrupted)
        with suppress(Unavailable):  # the next command marks it, and continues it
            tracker.set_status(run_id, "FAILED" if failed else "KILLED", str(error) or type(error).__name__)
        raise


def reap(settings: Settings, tracker: Tracker) -> list[str]:
    """Mark as KILLED the runs that are RUNNING though no process holds them, and ship the metrics they left."""
    if not settings.runs.exists() and settings.remote_runs is None:
        return []
    settings.runs.mkdir(parents=True, exist_ok=True)
    dead = []
    with FileLock(settings.runs / CLAIMS):
        for run in tracker.unfinished():
            if PREFIX + "fingerprint" not in run.data.tags:
                continue  # another program's
            run_id, parent = run.info.run_id, run.data.tags.get("mlflow.parentRunId")
            with _abandoned(settings, parent or run_id) as folder:
                if folder is None:
                    continue
                if parent is None:
                    ship(tracker, run_id, folder)
                tracker.set_status(run_id, "KILLED", "its process died; the same command continues it")
                dead.append(run_id)
    return dead


@contextmanager
def _abandoned(settings: Settings, run_id: str) -> Iterator[Path | None]:
    """The folder of a run that no process holds, locked; None if one does, or if it is another machine's."""
    folder = settings.runs / run_id
    store = ObjectStore(settings.remote_runs).below(run_id) if settings.remote_runs else None
    if not is_dead(store) if store else not folder.exists():
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder)
    lease = Lease(store) if lock is not None and store is not None else None
    try:
        free = lock is not None and (lease is None or lease.take())
        if free and store is not None:
            pull_metrics(store, folder)
        yield folder if free else None
    finally:
        if lease is not None:
            lease.release()
        if lock is not None:
            lock.release()


@contextmanager
def watchdog(settings: Settings, run_id: str) -> Iterator[None]:
    """A sleeping child that marks the run KILLED if this process dies without doing so, even by `kill -9`."""
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
