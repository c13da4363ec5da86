"""The folder of a worker on its own node, where nodes share none. It stays until object storage has what is in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from assay.errors import AssayError
from assay.files import private_folder
from assay.owner import Owner
from assay.storage.attempts import held_attempt, is_past
from assay.storage.object_store import ObjectStore
from assay.train.folder import ATTEMPT, FAILURE, OUTCOME, SENT, STOP
from assay.workers.assignment import Assignment

OWNER = "owner.json"


@contextmanager
def at_home(assignment: Assignment, rank: int) -> Iterator[Assignment]:
    """The assignment with a folder on this worker's node, if nodes share none.

    Rank 0 begins with what an earlier attempt left here that the store does not have, if there is such.
    """
    if not assignment.store:
        yield assignment
        return
    runs = Path(tempfile.gettempdir()) / f"assay-runs-{os.getuid()}"
    private_folder(runs)
    _clear(runs, assignment)
    folder = runs / assignment.run_id / assignment.attempt / f"rank-{rank}"
    _make(folder, _left(folder) if rank == 0 else None)
    try:
        yield replace(assignment, folder=str(folder))
    finally:
        if rank or (folder / SENT).exists():
            _remove(folder)


def _make(folder: Path, left: Path | None) -> None:
    """Create the folder with its owner, from what an earlier attempt has left."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name}")
    if left is None:
        new.mkdir()
        (new / OWNER).write_text(Owner.here().text())
    else:
        (left / OWNER).write_text(Owner.here().text())  # first: nobody else takes it now
        left.rename(new)
        with suppress(OSError):  # another worker's is there
            left.parent.rmdir()
    for name in (STOP, OUTCOME, FAILURE, SENT):
        (new / name).unlink(missing_ok=True)
    new.rename(folder)


def _left(folder: Path) -> Path | None:
    """The newest folder that a dead attempt at the same run has left here."""
    found = [other for other in folder.parents[1].glob("*/*rank-0") if _is_dead(other) and (other / ATTEMPT).exists()]
    return max(found, key=held_attempt, default=None)


def _clear(runs: Path, assignment: Assignment) -> None:
    """Remove what dead workers left and nobody needs."""
    for left in runs.glob("*/*/*rank-*"):
        run_id, attempt = left.parts[-3:-1]
        if not _is_dead(left):
            continue
        store = ObjectStore(assignment.store.replace(assignment.run_id, run_id))
        with suppress(AssayError):  # the next one looks again
            if not left.name.endswith("rank-0") or is_past(store, attempt):
                _remove(left)


def _is_dead(folder: Path) -> bool:
    """Whether its process is gone. One without an owner is being made, or was left in that moment by a kill."""
    try:
        owner = Owner.parse((folder / OWNER).read_bytes())
    except OSError:
        return False
    return owner is not None and owner.life == "gone"


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another worker still has one
        folder.parent.rmdir()
        folder.parent.parent.rmdir()
