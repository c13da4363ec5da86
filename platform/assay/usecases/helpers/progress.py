"""Shows a run while it trains: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from assay.log import Log
from assay.train.folder import LOG, SPOOL, STEPS
from assay.train.spool import read

PLAIN_SECONDS = 2.0


class Progress:
    """Follows the spool of one run, and what its workers tell."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._bar: Any = None

    def log(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        else:
            self._log(line)

    @contextmanager
    def showing(self, folder: Path) -> Iterator[None]:
        """Follow the run in `folder` whenever `tick` is called in this block."""
        self.folder = folder
        self.spool_offset = _size(folder / SPOOL)
        self.told_offset = _size(folder / LOG)
        self.step = self.first_step = -1
        self.latest: dict[str, float] = {}
        self.began = self.printed = time.monotonic()
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[what]}"), console=Console(stderr=True)) as self._bar:
            self._task = self._bar.add_task("", total=None, what="waiting for the workers")
            try:
                yield
            finally:
                bar, self._bar = self._bar, None
                bar.refresh()

    def tick(self) -> None:
        """Show what is new."""
        self._tell()
        spool = self.folder / SPOOL
        if not spool.exists():
            return
        before = self.step
        for record, end in read(spool, self.spool_offset):
            self.spool_offset = end
            self.latest.update(record.metrics)
            self.step = max(self.step, record.step)
        if self.step == before:
            return
        now, total = time.monotonic(), int((self.folder / STEPS).read_text())  # written before the first metric
        if before < 0:
            self.first_step, self.began = self.step, now
        if self._bar is not None:
            self._bar.update(self._task, total=total, completed=self.step, what=self._what())
        elif now - self.printed >= PLAIN_SECONDS or self.step >= total:
            self.printed = now
            rate = (self.step - self.first_step) / max(now - self.began, 1e-9)
            left = f"{(total - self.step) / rate:.0f} s left" if rate else "starting"
            self._log(f"step {self.step} of {total}  {rate:.0f} steps/s  {left}  {self._what()}")

    def _what(self) -> str:
        shown = [(name, value) for name, value in self.latest.items() if name.startswith(("train/", "val/"))]
        return "  ".join(f"{name} {value:.4f}" for name, value in shown[:4])

    def _tell(self) -> None:
        path = self.folder / LOG
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self.told_offset)
            for line in file:
                self.told_offset += len(line)
                self.log(line.decode(errors="replace").rstrip())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
