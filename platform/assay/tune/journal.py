"""The events of a search, one a sealed line, only ever appended: all that it takes to resume the search.

The first line describes the search. A torn last line, left by a kill or a full disk, is cut off; a damaged one is
refused, because what followed from it cannot be told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from assay.errors import InputError, WorkError
from assay.sealed import read_lines, sealed

Event = Mapping[str, Any]


class Journal:
    """The journal of one search, held by one process at a time.

    Raises:
        InputError: another process holds it, or a line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_suffix(".lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"search {path.parent.name} is in use by another process: wait for it, or stop it"
            ) from None
        self.events, end = read_journal(path)
        self._file = path.open("ab", buffering=0)
        self._file.truncate(end)

    def append(self, event: str, **fields: Any) -> None:
        """Write an event; it survives a kill at once, and a power cut from the next `sync` on.

        Raises:
            WorkError: it could not be written, such as to a full disk; the search has not continued.
        """
        line = sealed({"event": event, **fields, "time": round(time.time(), 3)})
        try:
            whole = self._file.write(line) == len(line)
            why = "the disk is full"
        except OSError as error:
            whole, why = False, str(error.strerror)
        if not whole:
            raise WorkError(f"{self.path}: cannot be written ({why}): fix that, then the same command resumes it")

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        self._lock.release()


def read_journal(path: Path) -> tuple[list[Event], int]:
    """The events of a journal, and the byte at which the last whole one ends. No file: no events."""
    events: list[Event] = []
    end = 0
    for line in read_lines(path) if path.exists() else ():
        if line.data is None:
            raise InputError(
                f"{path}: line {line.number} is damaged: restore the file, or start a new search with --new"
            )
        events.append(line.data)
        end = line.end
    return events, end


def working_seconds(events: list[Event]) -> float:
    """The working time of all sessions: each from its first event to its last."""
    total, began, last = 0.0, None, 0.0
    for event in events:
        if event["event"] == "session":
            total += last - began if began is not None else 0.0
            began = event["time"]
        last = event["time"]
    return total + (last - began if began is not None else 0.0)
