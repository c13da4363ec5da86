"""How something long is shown on standard error: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from assay.errors import last_line

if TYPE_CHECKING:
    from rich.console import Console

    from assay.log import Log

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) while something long runs."""

PLAIN_SECONDS = 2.0
"""The least time between two plain lines."""


def count(number: float) -> str:
    """A number of things, or of things per second, for people."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def plain_console(**options: Any) -> Console:
    """A Rich console that shows text as it is: names, paths and reasons may contain what Rich takes for its markup."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)


class PlainProgress:
    """Logs every two seconds how much is done, the rate and the time left; with `last`, also at the end."""

    def __init__(self, title: str, log: Log, amount: Callable[[float], str] = count, last: bool = True) -> None:
        self._title, self._log, self._amount, self._last = title, log, amount, last
        self.start(0)

    def start(self, done: int) -> None:
        """Measure the rate from now on."""
        self._first = done
        self._began = self._printed = time.monotonic()

    def __call__(self, done: int, total: int | None, what: str = "") -> None:
        now = time.monotonic()
        if now - self._printed < PLAIN_SECONDS and not (self._last and total is not None and done >= total):
            return
        self._printed = now
        rate = (done - self._first) / max(now - self._began, 1e-9)
        speed = [f"{self._amount(rate)}/s"] if rate > 0 else []
        speed += [f"{(total - done) / rate:.0f} s left"] if rate > 0 and total is not None else []
        line = f"{self._title} {self._amount(done)} of {'?' if total is None else self._amount(total)}"
        self._log(", ".join([line, *speed, *([what] if what else [])]))


class Display:
    """Shows something long: a Rich display on a terminal, lines elsewhere."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._rich: Any = None
        self._failed = False

    def tick(self) -> None:
        """Show what is new, if what this follows changes by itself."""
        with self._harmless():
            self._show()

    def _show(self) -> None:  # noqa: B027
        pass

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Say once what fails in the block, such as a file that somebody has damaged: no display ends any work."""
        try:
            yield
        except Exception as error:
            if not self._failed:
                self._failed = True
                why = f"{type(error).__name__}: {last_line(error)}"
                self.log(f"warning: how far this is cannot always be shown ({why})")

    def log(self, line: str) -> None:
        """Print a line for people, above the Rich display if there is one."""
        if self._rich is not None:
            self._rich.console.print(line)
        else:
            self._log(line)

    @contextmanager
    def _drawing(self, display: Callable[[Console], Any]) -> Iterator[None]:
        """Draw `display` while the block runs, if standard error is a terminal."""
        if not sys.stderr.isatty():
            yield
            return
        with display(plain_console(stderr=True)) as self._rich:
            try:
                yield
            finally:
                drawn, self._rich = self._rich, None
                drawn.refresh()


class Bar(Display):
    """A bar with count, time left and a word on what is done; elsewhere the lines of `PlainProgress`.

    `transient`: the bar disappears at the end.
    """

    def __init__(self, title: str, log: Log, transient: bool = False) -> None:
        super().__init__(log)
        self._title, self._transient = title, transient
        self._plain = PlainProgress(title, log)

    @contextmanager
    def showing(self, what: str = "") -> Iterator[None]:
        """Show the bar while the block runs. `what` is shown until the first update."""
        with self._drawing(self._bar):
            if self._rich is not None:
                self._task = self._rich.add_task(self._title, total=None, what=what)
            yield

    def start(self, done: int) -> None:
        """Measure the rate from now on."""
        self._plain.start(done)

    def update(self, done: int, total: int | None, what: str = "") -> None:
        """Show how much is done; a `total` of None is not known."""
        if self._rich is not None:
            self._rich.update(self._task, completed=done, total=total, what=what)
        else:
            self._plain(done, total, what)

    def _bar(self, console: Console) -> Any:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        title, what = (TextColumn(f"{{task.{shown}}}", markup=False) for shown in ("description", "fields[what]"))
        columns = (title, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, what, console=console, transient=self._transient)
