"""What verbs print: one JSON object with `--json`, else a table, on standard output; all else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any, TextIO

import typer

from assay.progress import Bar, Progress, plain_console

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]

WIDE = 200
"""Columns of what is printed into a file or a pipe, where nothing needs to be cut."""

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
    """Print a verb's result: as JSON, or as `render` shows it (text or a Rich renderable)."""
    if as_json:
        typer.echo(json.dumps(result, default=str), file=_results)
    else:
        console = plain_console()
        (console if console.is_terminal else plain_console(width=WIDE)).print(render(result))


def log(line: str) -> None:
    """One plain line for people, on standard error."""
    typer.echo(line, err=True)


def table(rows: Mapping[str, Any]) -> Any:
    """A Rich table of names and values."""
    from rich.table import Table

    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    return grid


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show on standard error how far something long is."""
    bar = Bar(f"{title}:", log, transient=True)
    with bar.showing():
        yield bar.update
