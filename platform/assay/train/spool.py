"""The durable record of metrics: an append-only file of sealed lines, written by rank 0, read by the tracker.

A metric of a step is written once: a resumed run does not write it again. A line torn by a kill is cut off. A damaged
line is left out and the others are read: whoever needs all points asks the tracking store for those it has. While it is
written, the file never gets shorter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from assay.files import write_atomic
from assay.sealed import Line, read_lines, sealed, unsealed
from assay.train.folder import SYNCED

Damaged = Callable[[Line], None]
"""Is told of each damaged line, and of each that says that lines are missing."""


@dataclass(frozen=True)
class StepMetrics:
    """Metrics at a step; `time` is in milliseconds since 1970. `kept`: those of the weights that the run now keeps."""

    step: int
    time: int
    metrics: Mapping[str, float]
    kept: bool = False


class _Whole(Line):
    data: Mapping[str, Any]


class Spool:
    """Appends metrics. `seen` holds the last step of each."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.seen: dict[str, int] = {}
        end = 0
        for line in read_lines(path) if path.exists() else ():
            end = line.end
            if _has_metrics(line):
                self.seen.update(dict.fromkeys(line.data["metrics"], line.data["step"]))
        self._path, self._synced = path, path.with_name(SYNCED)
        self._file = path.open("ab")
        self._file.truncate(end)
        self._end = end
        if self._is_short(end):
            self._write({"lost": True})

    def append(self, step: int, metrics: Mapping[str, float], kept: bool = False) -> None:
        fresh = {name: float(value) for name, value in metrics.items() if self.seen.get(name, -1) < step}
        if not fresh:
            return
        self.seen.update(dict.fromkeys(fresh, step))
        line = {"step": step, "time": time.time_ns() // 1_000_000, "metrics": fresh}
        self._write({**line, "kept": True} if kept else line)

    def _write(self, data: Mapping[str, Any]) -> None:
        self._keep_length()
        self._file.write(sealed(data))
        self._file.flush()
        self._end = self._file.tell()

    def _keep_length(self) -> None:
        """Fill what somebody has cut off, or removed, by a damaged line: all that read on do so from an offset."""
        if not self._path.exists():
            self._file = self._path.open("ab")
        if os.fstat(self._file.fileno()).st_size < self._end:
            self._file.truncate(self._end - 1)
            self._file.write(b"\n" + sealed({"lost": True}))

    def sync(self) -> None:
        """Make everything so far survive a power cut: a checkpoint follows, and what is before it is not repeated."""
        os.fsync(self._file.fileno())
        write_atomic(self._synced, sealed({"size": self._file.tell()}))

    def _is_short(self, end: int) -> bool:
        """Whether the file ends before the last checkpoint; also if the note of that is damaged."""
        if not self._synced.exists():
            return False
        note = unsealed(self._synced.read_bytes())
        return note is None or end < note["size"]

    def close(self) -> None:
        self._file.close()


def read_spool(path: Path, offset: int, damaged: Damaged = lambda _: None) -> Iterator[tuple[StepMetrics, int]]:
    """The whole lines from `offset` on, each with the offset behind it. A torn last line is left out."""
    for line in read_lines(path, offset):
        if _has_metrics(line):
            data = line.data
            yield StepMetrics(data["step"], data["time"], data["metrics"], data.get("kept", False)), line.end
        else:
            damaged(line)


def damaged_lines(path: Path) -> int:
    """How many lines of a spool are damaged, or say that lines are missing. No file: none."""
    return sum(not _has_metrics(line) for line in read_lines(path)) if path.exists() else 0


def _has_metrics(line: Line) -> TypeGuard[_Whole]:
    return line.data is not None and "metrics" in line.data
