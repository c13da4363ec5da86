"""Folders for files that nobody needs after a command: below `.assay/tmp/`, so that the next command finds what a kill
leaves behind, and so that large files are on the disk that the user chose for them.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from assay.owner import Owner, life_of
from assay.state import SCRATCH, state_folder

FORGET_SECONDS = 30 * 24 * 3600


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """An empty private folder of the project at `root`, removed at the end. First clears what dead processes left."""
    place = state_folder(root) / SCRATCH
    place.mkdir(parents=True, exist_ok=True)
    clear_scratch(root)
    own = place / f"{Owner.here().label}.{secrets.token_hex(4)}"
    own.mkdir(mode=0o700)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def clear_scratch(root: Path) -> None:
    """Remove the folders of processes that are gone; of another machine, or from before a restart, only old ones."""
    for folder in (state_folder(root) / SCRATCH).glob("*"):
        life = life_of(folder.name.partition(".")[0])
        if life == "gone" or (life == "elsewhere" and _is_old(folder)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_old(folder: Path) -> bool:
    with suppress(OSError):
        return time.time() - folder.stat().st_mtime > FORGET_SECONDS
    return False
