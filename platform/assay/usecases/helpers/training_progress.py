"""Shows a run while it trains, from the files that its workers write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.log import Log
from assay.progress import Bar
from assay.train.folder import LOG, SPOOL, read_steps
from assay.train.spool import read_spool


class TrainingProgress(Bar):
    """Follows the spool of one run, and the lines that its workers log."""

    def __init__(self, log: Log) -> None:
        super().__init__("step", log)

    @contextmanager
    def following(self, folder: Path) -> Iterator[None]:
        """Follow the run in `folder` whenever `tick` is called in this block."""
        self.folder = folder
        self.spool_offset = _size(folder / SPOOL)
        self.log_offset = _size(folder / LOG)
        self.step = -1
        self.total: int | None = None
        self.latest: dict[str, float] = {}
        with self.showing("waiting for the workers"):
            yield

    def _show(self) -> None:
        self._show_log()
        spool = self.folder / SPOOL
        if not spool.exists():
            return
        before = self.step
        for record, end in read_spool(spool, self.spool_offset):
            self.spool_offset = end
            self.latest.update(record.metrics)
            self.step = max(self.step, record.step)
        if self.step == before:
            return
        if before < 0:
            self.start(self.step)
        self.total = read_steps(self.folder) or self.total
        self.update(self.step, self.total, self._metrics())

    def _metrics(self) -> str:
        shown = [(name, value) for name, value in self.latest.items() if name.startswith(("train/", "val/"))]
        return "  ".join(f"{name} {value:.4f}" for name, value in shown[:4])

    def _show_log(self) -> None:
        path = self.folder / LOG
        if not path.exists():
            return
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self.log_offset:
                self.log_offset = 0  # somebody has cut it
            file.seek(self.log_offset)
            for line in file:
                self.log_offset += len(line)
                self.log(line.decode(errors="replace").rstrip())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
