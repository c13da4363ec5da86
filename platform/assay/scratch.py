"""Folders for files that nobody needs after a command: below `.assay/tmp/`, so that the next command finds what a kill
leaves behind, and so that large files are on the disk that the user chose for them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from assay.owner import Owner
from assay.state import SCRATCH, state_folder

FORGET_SECONDS = 30 * 24 * 3600
_OWNER = "owner.json"
"""Written first: a folder without it is being made, or was left by a kill in that moment."""


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """An empty private folder of the project at `root`, removed at the end. First clears what dead processes left."""
    place = state_folder(root) / SCRATCH
    place.mkdir(parents=True, exist_ok=True)
    clear_scratch(root)
    own = place / f"{os.getpid()}-{secrets.token_hex(4)}"
    own.mkdir(mode=0o700)
    try:
        (own / _OWNER).write_text(Owner.here().text())
        inside = own / "files"
        inside.mkdir()
        yield inside
    finally:
        shutil.rmtree(own, ignore_errors=True)


def clear_scratch(root: Path) -> None:
    """Remove the folders of processes that are gone."""
    for folder in (state_folder(root) / SCRATCH).glob("*"):
        try:
            owner = Owner.parse((folder / _OWNER).read_bytes())
        except OSError:
            owner = None
        pid = folder.name.partition("-")[0]
        unwritten = owner is None and (not pid.isdigit() or Owner.of(int(pid)) is None)
        if unwritten or (owner is not None and (owner.life == "gone" or _is_old(folder, owner))):
            shutil.rmtree(folder, ignore_errors=True)


def _is_old(folder: Path, owner: Owner) -> bool:
    """Whether a folder is from another machine, or from before a restart of this one, and nobody's any more."""
    with suppress(OSError):
        return owner.life == "elsewhere" and time.time() - folder.stat().st_mtime > FORGET_SECONDS
    return False
