"""How verbs speak: one JSON object on standard output with `--json`, tables for people without, all else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any, TextIO

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) while something long runs."""


PLAIN_SECONDS = 2.0
"""How often a plain line tells of progress."""

_results: TextIO | None = None


@contextmanager
def results_only() -> Iterator[None]:
    """Keep standard output for the result: whatever libraries print goes to standard error."""
    global _results
    _results = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results = None


def present(result: Mapping[str, Any], as_json: bool, render: Callable[[Mapping[str, Any]], Any]) -> None:
    """Print a verb's result: as JSON, or as whatever `render` makes of it (text or a Rich renderable)."""
    if as_json:
        typer.echo(json.dumps(result, default=str), file=_results)
    else:
        from rich.console import Console

        Console().print(render(result))


def log(line: str) -> None:
    """One plain line for people, on standard error."""
    typer.echo(line, err=True)


def table(rows: Mapping[str, Any]) -> Any:
    """A two-column Rich table: a name and its value."""
    from rich.table import Table

    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(f"[bold]{name}[/bold]", f"{value:.4f}" if isinstance(value, float) else str(value))
    return grid


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A bar with rate and time left on a terminal; elsewhere a line every two seconds. On standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain(title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[what]}"), console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, what="")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, what=what)


def _plain(title: str) -> Progress:
    said = time.monotonic()

    def update(done: int, total: int, what: str) -> None:
        nonlocal said
        now = time.monotonic()
        if done == total or now - said >= PLAIN_SECONDS:
            said = now
            log(f"{title}: {done} of {total} {what}".rstrip())

    return update
