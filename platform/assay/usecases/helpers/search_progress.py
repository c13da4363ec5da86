"""Shows a search while it runs: a live table of the best trials on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from assay.log import Log
from assay.progress import PLAIN_SECONDS, Display
from assay.report.search import SearchSnapshot, line, live

REFRESH_SECONDS = 1.0


class SearchProgress(Display):
    """Follows one search."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self._take: Callable[[], SearchSnapshot] | None = None
        self._shown = 0.0
        self._line = ""

    @contextmanager
    def following(self, take: Callable[[], SearchSnapshot]) -> Iterator[None]:
        """Show what `take` returns whenever `tick` is called in this block."""
        from rich.live import Live

        self._take = take
        with self._drawing(lambda console: Live(console=console, auto_refresh=False)):
            try:
                yield
            finally:
                with self._harmless():
                    if self._rich is not None:
                        self._rich.update(live(take()))

    def _show(self) -> None:
        now = time.monotonic()
        if self._take is None or now - self._shown < (REFRESH_SECONDS if self._rich is not None else PLAIN_SECONDS):
            return
        self._shown = now
        snapshot = self._take()
        if self._rich is not None:
            self._rich.update(live(snapshot), refresh=True)
        elif (text := line(snapshot)).partition(", best")[0] != self._line:
            self._line = text.partition(", best")[0]
            self._log(text)
