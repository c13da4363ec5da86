"""What a Ray leaves behind: processes that outlive their servers, and a folder of logs and sockets, its session.

Ray never removes a session. It is ours to remove once the process that started it is gone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from assay.owner import Owner

_OWNER = "owner.json"
SESSIONS = "session_2*"
END_SECONDS = 2.0


def own_sessions(folder: Path) -> list[Path]:
    """The sessions that this process has started: their names end with its id."""
    return list(folder.glob(f"{SESSIONS}_{os.getpid()}"))


def note_owner(folder: Path) -> None:
    """Note in this process's sessions that they are its own."""
    for session in own_sessions(folder):
        (session / _OWNER).write_text(Owner.here().text())


def clear_sessions(folder: Path) -> None:
    """Remove the sessions whose process is gone, and end what is left of their Rays."""
    for session in folder.glob(SESSIONS):
        if _is_dead(session):
            end(processes_of([session]), 0)
            shutil.rmtree(session, ignore_errors=True)


def _is_dead(session: Path) -> bool:
    with suppress(OSError):
        if (owner := Owner.parse((session / _OWNER).read_bytes())) is not None:
            return owner.life == "gone"
    starter = session.name.rpartition("_")[2]  # of one that was killed before it left a note, or of a user's own Ray
    return starter.isdigit() and Owner.of(int(starter)) is None and not processes_of([session])


def processes_of(sessions: Iterable[Path]) -> set[psutil.Process]:
    """The processes of these Rays, wherever they hang in the tree: each has a log open there."""
    folders, found = [session.resolve() for session in sessions], set()
    for process in psutil.process_iter() if folders else ():
        with suppress(psutil.Error, OSError):  # it is gone, or another user's
            if process.pid != os.getpid() and any(
                Path(file.path).is_relative_to(folder) for file in process.open_files() for folder in folders
            ):
                found.add(process)
    return found


def end(processes: Iterable[psutil.Process], seconds: float = END_SECONDS) -> None:
    """Kill the processes that have not ended by themselves after a while."""
    _, alive = psutil.wait_procs(list(processes), timeout=seconds)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=END_SECONDS)
