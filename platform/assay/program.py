"""What every program of Assay does first. Free of pydantic, so that it costs nothing."""

from __future__ import annotations

import errno
import gc
import io
import os
import stat
import sys
from typing import Any

SILENCE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""Switches off what phones home, and bars for single files, for this process and its children."""

COLLECT_EVERY = 10_000
"""New objects between two garbage collections. Python's 700 make a fifth of the time that torch and MLflow take to
import; nothing that they create is garbage."""


def start_program() -> None:
    """Apply `SILENCE` unless the user has decided otherwise, and collect garbage less often.

    Called by entry points, never at import.
    """
    for name, value in SILENCE.items():
        os.environ.setdefault(name, value)
    gc.set_threshold(COLLECT_EVERY)


def outlive_output() -> None:
    """Let this program and its children outlive whoever reads their output: what nobody reads is dropped.

    Called by entry points. A file that was closed from the start, as by `>&-`, is one that nobody reads.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _open_nowhere(descriptor)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None and stream is not getattr(sys, f"__{name}__"):
            continue  # somebody has put another in its place
        if stream is not None:
            stream.flush()
        setattr(sys, name, _outliving(stream, descriptor))


def _outliving(stream: Any, descriptor: int) -> io.TextIOWrapper:
    raw = Output(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors=getattr(stream, "errors", "backslashreplace"),
        line_buffering=descriptor == 2 or raw.isatty(),
    )


class Output(io.FileIO):
    """Standard output or standard error, which drops everything once nobody reads it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._terminal = stat.S_ISCHR(os.fstat(descriptor).st_mode)  # a closed terminal says that it is none

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EPIPE and not (error.errno == errno.EIO and self._terminal):
                error.filename = "standard output" if self.fileno() == 1 else "standard error"
                _open_nowhere(self.fileno())  # it is reported once, not again at the end of the program
                raise
        _open_nowhere(self.fileno())  # also for what libraries and programs that are started from now on write
        return len(data)


def _open_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)  # inherited by programs that are started, as the standard files are
        os.close(nowhere)
    else:
        os.set_inheritable(descriptor, True)
