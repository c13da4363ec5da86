"""The life of a run: created or continued under a lock, watched while it lives, never left RUNNING."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from assay.errors import AssayError, InputError, Interrupted, Unavailable, causes
from assay.files import read_json, remove_folder, write_atomic
from assay.owner import Life, Owner
from assay.settings import Settings
from assay.signals import wait_or_kill
from assay.storage.attempts import pull_metrics, pull_starts
from assay.storage.lease import Lease, TakenOver, is_dead, is_free, turn
from assay.storage.object_store import ObjectStore
from assay.system_errors import explained
from assay.tracking.known_store import remember_store
from assay.tracking.provenance import PREFIX, Provenance
from assay.tracking.recorder import ship
from assay.tracking.run import Run
from assay.tracking.sessions import log_texts, next_number, note_starts, session_tag
from assay.tracking.tracker import Tracker
from assay.train.folder import LOCK, OUTCOME, STOP

CLAIMS = ".claims.lock"
CREATING = ".creating"
"""In the folder of runs while one is created: the value of its tag `creation`. Only who holds `CLAIMS` touches it."""
SAME = "the same command"
"""What errors say continues the work: true of a command without `--new`."""
CREATION = f"{PREFIX}creation"
OWNER = f"{PREFIX}owner"
"""The process that works on a run, or did so last: whom to ask whether a run that says RUNNING is dead."""


@dataclass(frozen=True)
class Claim:
    """A run that this process may work on, or one that is finished.

    Attributes:
        session: counts the processes that worked on it.
        lease: holds it if it is in object storage.
    """

    run_id: str
    folder: Path
    finished: bool
    session: int = 0
    lease: Lease | None = None


def is_finished(run: Run) -> bool:
    return run.info.status == "FINISHED"


@contextmanager
def claim(
    settings: Settings,
    tracker: Tracker,
    experiment: str,
    provenance: Provenance,
    resume: str | None,
    new: bool,
    finished: Callable[[Run], bool] = is_finished,
) -> Iterator[Claim]:
    """Find the run of these inputs, or create it; lock it against other processes until the end of the block.

    Args:
        finished: whether nothing is left to do for a run. It is asked again once the run is locked: until then,
            another process may have finished it.

    Raises:
        InputError: another process is working on it.
    """
    settings.runs.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.runs / CLAIMS), _turn(settings, provenance.tags["fingerprint"]):
        run = _find(settings, tracker, experiment, provenance, resume, new, finished)
        if run is not None and finished(run):
            lock = None
        else:
            run_id = _create(settings, tracker, experiment, provenance) if run is None else run.info.run_id
            folder = settings.runs / run_id
            folder.mkdir(parents=True, exist_ok=True)
            (settings.runs / CREATING).unlink(missing_ok=True)
            lock = _lock(folder)
            if lock is None:
                raise _is_taken(run_id, provenance)
    if lock is None:
        assert run is not None
        yield Claim(run.info.run_id, settings.runs / run.info.run_id, True)
        return
    try:
        with _leased(settings, run_id, provenance) as lease:
            session = 1 if run is None else _take_over(settings, tracker, run_id, provenance, finished)
            if session is None:
                yield Claim(run_id, folder, True)
                return
            remember_store(settings, run_id)
            with watchdog(settings, run_id), _naming_the_run(run_id, provenance) if new else nullcontext():
                yield Claim(run_id, folder, False, session, lease)
    finally:
        lock.release()


@contextmanager
def _naming_the_run(run_id: str, provenance: Provenance) -> Iterator[None]:
    """For a command with `--new`, which begins another run if it is given again: let errors say how to continue."""
    try:
        yield
    except AssayError as error:
        tags = {PREFIX + name: value for name, value in provenance.tags.items()}
        error.args = (str(error).replace(SAME, continuing(run_id, tags)),)
        raise


def continuing(run_id: str, tags: Mapping[str, str]) -> str:
    """The command that continues a run or a search, whichever way it was begun; of a trial, its search."""
    search = tags.get(f"{PREFIX}search")
    verb = f"tune {search}" if search else f"train {tags.get(f'{PREFIX}experiment', 'EXPERIMENT')}"
    return f"`assay {verb} --resume {tags.get(f'{PREFIX}search_id', run_id)}`"


def _find(
    settings: Settings,
    tracker: Tracker,
    experiment: str,
    provenance: Provenance,
    resume: str | None,
    new: bool,
    finished: Callable[[Run], bool],
) -> Run | None:
    """The run to claim: the one named by `resume`, else one of these inputs; None to create one."""
    if resume:
        run = tracker.get(resume)
        if not finished(run) and not _can_continue(settings, run):
            raise InputError(
                f"{provenance.kind} {resume} cannot be continued here, because its folder {settings.runs / resume} is "
                "missing: continue it where that is, or start anew with --new"
            )
        return run
    if new:
        return None
    found = tracker.find_all(experiment, provenance.tags["fingerprint"], provenance.kind)
    return next((run for run in found if finished(run) or _can_continue(settings, run)), None)


def _can_continue(settings: Settings, run: Run) -> bool:
    """Whether what a run has behind it is here. Begun again, it would record each of its metrics twice."""
    if settings.remote_runs is not None or (settings.runs / run.info.run_id).exists():
        return True
    elsewhere = run.info.status == "RUNNING" and _owner_life(run) == "elsewhere"
    return not elsewhere and not run.data.metrics


def _create(settings: Settings, tracker: Tracker, experiment: str, provenance: Provenance) -> str:
    """A new run. If this process dies before the run has a folder, `reap` knows it by the file `CREATING`."""
    token = secrets.token_hex(8)
    write_atomic(settings.runs / CREATING, token.encode())
    tags = {"creation": token, "owner": Owner.here().text(), **session_tag(1, provenance)}
    return tracker.create(experiment, replace(provenance, tags={**provenance.tags, **tags}))


def _take_over(
    settings: Settings,
    tracker: Tracker,
    run_id: str,
    provenance: Provenance,
    finished: Callable[[Run], bool],
) -> int | None:
    """Make an existing run, which is locked, one of this process; the number of this session, None if it is finished.

    Raises:
        InputError: a process works on it in a folder of its own, as that of another clone.
    """
    folder = settings.runs / run_id
    if settings.remote_runs is not None:
        pull_starts(ObjectStore(settings.remote_runs).below(run_id), folder)
    tags = note_starts(tracker, run_id, folder)
    with tracker.turn():
        run = tracker.get(run_id)
        if finished(run):
            return None
        if settings.remote_runs is None and _is_anothers(run):  # in object storage the lease alone decides
            raise _is_taken(run_id, provenance)
        session = next_number(tags)
        own = {"owner": Owner.here().text(), **session_tag(session, provenance)}
        tracker.set_tags(run_id, {PREFIX + name: value for name, value in own.items()})
        tracker.set_status(run_id, "RUNNING")
    tracker.complete(run_id, provenance)
    log_texts(tracker, run_id, session, provenance)
    return session


def _is_taken(run_id: str, provenance: Provenance) -> InputError:
    doing = "worked on" if provenance.kind == "search" else "trained"
    return InputError(f"{provenance.kind} {run_id} is being {doing} by another process; wait for it, or use --new")


def _owner_life(run: Run) -> Life | None:
    """How the process fares that works on a run, or did so last; None if the run names none."""
    owner = Owner.parse(run.data.tags.get(OWNER, ""))
    return None if owner is None else owner.life


def _is_anothers(run: Run) -> bool:
    """Whether another living process of this machine works on a run."""
    owner = Owner.parse(run.data.tags.get(OWNER, ""))
    others = owner is not None and owner.life == "alive" and owner != Owner.here()
    return others and run.info.status == "RUNNING"


@contextmanager
def _turn(settings: Settings, fingerprint: str) -> Iterator[None]:
    """Let one machine at a time look for the run of these inputs and create it, if runs are kept in object storage."""
    if settings.remote_runs is None:
        yield
        return
    with turn(ObjectStore(settings.remote_runs).below(f"claims/{fingerprint}")):
        yield


@contextmanager
def _leased(settings: Settings, run_id: str, provenance: Provenance) -> Iterator[Lease | None]:
    """Lock a run against other machines too, if runs are kept in object storage."""
    if settings.remote_runs is None:
        yield None
        return
    lease = Lease(ObjectStore(settings.remote_runs).below(run_id), (settings.runs / run_id / STOP).touch)
    if not lease.take():
        raise _is_taken(run_id, provenance)
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
        reason = str(explained(error) or error) or type(error).__name__
        with suppress(AssayError):  # of a store that is silent, or a run that was deleted: the error itself says more
            reason = reason.replace(SAME, continuing(run_id, tracker.get(run_id).data.tags))
            tracker.set_status(run_id, "FAILED" if failed else "KILLED", reason)
        raise


def reap(settings: Settings, tracker: Tracker) -> list[str]:
    """Mark as KILLED the runs that are RUNNING though no process holds them, and ship the metrics they left.

    Also remove the folders of finished runs.
    """
    settings.runs.mkdir(parents=True, exist_ok=True)
    dead = []
    with FileLock(settings.runs / CLAIMS):
        half_made = _creating(settings)
        for run in tracker.unfinished():
            if PREFIX + "fingerprint" not in run.data.tags:
                continue  # another program's
            run_id, parent = run.info.run_id, run.data.tags.get("mlflow.parentRunId")
            with _abandoned(settings, run, half_made) as abandoned:
                if not abandoned or not _is_running(tracker, run_id):
                    continue
                folder = settings.runs / run_id
                if parent is None and folder.exists():
                    ship(tracker, run_id, folder)
                    note_starts(tracker, run_id, folder)
                if _bury(tracker, run):
                    dead.append(run_id)
        (settings.runs / CREATING).unlink(missing_ok=True)
        _forget_finished(settings, tracker)
    return dead


def _forget_finished(settings: Settings, tracker: Tracker) -> None:
    """Remove the folders of runs that are finished: a kill between the status and the removal leaves them."""
    for outcome in settings.runs.glob(f"*/{OUTCOME}"):
        with suppress(AssayError):  # no run of this store, or a damaged outcome, which is not used again
            finished = read_json(outcome, "", ["finished"])["finished"]
            if finished and tracker.get(outcome.parent.name).info.status == "FINISHED":
                remove_folder(outcome.parent)


def _bury(tracker: Tracker, run: Run) -> bool:
    """Mark a run KILLED, unless a process in another folder has taken it over meanwhile."""
    with tracker.turn():
        if not _is_running(tracker, run.info.run_id):
            return False
        again = continuing(run.info.run_id, run.data.tags)
        tracker.set_status(run.info.run_id, "KILLED", f"its process died; to continue it: {again}")
        return True


def _is_running(tracker: Tracker, run_id: str) -> bool:
    """Whether that is still so: until the run was locked, its process may have ended it well."""
    try:
        run = tracker.get(run_id)
    except InputError:  # somebody has deleted it meanwhile
        return False
    return run.info.status == "RUNNING" and not _is_anothers(run)


def _creating(settings: Settings) -> str | None:
    """The tag of the run that a process of this project created when it died; None if none did."""
    try:
        return (settings.runs / CREATING).read_text(errors="replace")  # damaged, it is no run's
    except FileNotFoundError:
        return None


@contextmanager
def _abandoned(settings: Settings, run: Run, half_made: str | None) -> Iterator[bool]:
    """Whether no process holds a run, or the search that it is a trial of. If its folder is here, it is locked.

    A run without a folder here is left to its machine, unless its process was of this machine and is gone.
    """
    run_id = run.data.tags.get("mlflow.parentRunId") or run.info.run_id
    folder = settings.runs / run_id
    store = ObjectStore(settings.remote_runs).below(run_id) if settings.remote_runs else None
    held_here = folder.exists() if store is None else is_dead(store)
    if not held_here:
        gone = _owner_life(run) == "gone" or (half_made is not None and run.data.tags.get(CREATION) == half_made)
        yield gone and (store is None or is_free(store))
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder)
    lease = Lease(store) if lock is not None and store is not None else None
    try:
        free = lock is not None and (lease is None or lease.take())
        if free and store is not None:
            pull_metrics(store, folder)
            pull_starts(store, folder)
        yield free
    finally:
        if lease is not None:
            lease.release()
        if lock is not None:
            lock.release()


@contextmanager
def watchdog(settings: Settings, run_id: str) -> Iterator[None]:
    """A sleeping child that marks the run KILLED if this process dies without doing so, even by `kill -9`.

    So it does if the block ends because the tracking store is silent: this process could not set the status then.
    """
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
    except BaseException as error:
        if not any(isinstance(cause, Unavailable) for cause in causes(error)):  # else the pipe ends with this process
            _relieve(child, writing)
        raise
    _relieve(child, writing)


def _relieve(watchdog: subprocess.Popen[bytes], pipe: int) -> None:
    with suppress(BrokenPipeError):  # somebody killed it
        os.write(pipe, b"done")
    os.close(pipe)
    wait_or_kill(watchdog)


def _lock(folder: Path) -> FileLock | None:
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
