"""The durable record of metrics: an append-only file of JSON lines, written by rank 0, read by the tracker.

A metric of a step is written once: a resumed run does not write it again. A line torn by a kill is cut off.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StepMetrics:
    """Metrics at a step; `time` is in milliseconds since 1970."""

    step: int
    time: int
    metrics: Mapping[str, float]


class Spool:
    """Appends metrics. `seen` holds the last step of each."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.seen: dict[str, int] = {}
        end = 0
        if path.exists():
            for record, whole in read_spool(path, 0):
                end = whole
                self.seen.update(dict.fromkeys(record.metrics, record.step))
        self._file = path.open("ab")
        self._file.truncate(end)

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        fresh = {name: float(value) for name, value in metrics.items() if self.seen.get(name, -1) < step}
        if not fresh:
            return
        self.seen.update(dict.fromkeys(fresh, step))
        line = {"step": step, "time": time.time_ns() // 1_000_000, "metrics": fresh}
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()

    def sync(self) -> None:
        """Make everything so far survive a power cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_spool(path: Path, offset: int) -> Iterator[tuple[StepMetrics, int]]:
    """The complete lines from `offset` on, each with the offset behind it. A torn last line is left out."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                data = json.loads(line)
                record = StepMetrics(data["step"], data["time"], data["metrics"])
            except (ValueError, KeyError, TypeError):
                return
            offset += len(line)
            yield record, offset
