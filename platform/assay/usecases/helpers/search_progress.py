"""Shows a search while it runs: a live table of the best on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from assay.log import Log
from assay.report.search import SearchStory, line, live

PLAIN_SECONDS = 2.0
REFRESH_SECONDS = 1.0


class SearchProgress:
    """Follows one search."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._live: Any = None
        self._story: Callable[[], SearchStory] | None = None
        self._shown = 0.0
        self._line = ""

    def log(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            self._log(text)

    @contextmanager
    def showing(self, story: Callable[[], SearchStory]) -> Iterator[None]:
        """Follow the search whenever `tick` is called in this block."""
        self._story = story
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), auto_refresh=False) as self._live:
            try:
                yield
            finally:
                self._live.update(live(story()), refresh=True)
                self._live = None

    def tick(self) -> None:
        """Show what is new."""
        now = time.monotonic()
        if self._story is None or now - self._shown < (REFRESH_SECONDS if self._live is not None else PLAIN_SECONDS):
            return
        self._shown = now
        story = self._story()
        if self._live is not None:
            self._live.update(live(story), refresh=True)
        elif (text := line(story)).partition(", best")[0] != self._line:
            self._line = text.partition(", best")[0]
            self._log(text)
