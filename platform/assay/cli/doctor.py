"""`assay doctor`: is everything in place that a project needs, and how to fix what is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from assay.cli.output import AsJson, present


def doctor(as_json: AsJson = False) -> None:
    """Check this machine and this project, and show how to fix what is wrong.

    Exits with code 2 if a check fails; warnings do not count.

    Example: assay doctor --json
    """
    from assay.usecases.doctor import diagnose

    result = diagnose()
    try:
        present(result, as_json, _render)
    except ImportError:  # Rich may be what is missing
        typer.echo("\n".join(f"{_mark(c)} {c['name']}: {c['detail']} {_fix(c)}".rstrip() for c in result["checks"]))
    if not result["ok"]:
        raise typer.Exit(2)


def _mark(check: Mapping[str, Any]) -> str:
    """A cross for a failure, an exclamation mark for a warning, else a tick."""
    if not check["ok"]:
        return "✗"
    return "!" if check["fix"] else "✓"


def _fix(check: Mapping[str, Any]) -> str:
    return f"fix: {check['fix']}" if check["fix"] else ""


def _render(result: Mapping[str, Any]) -> Any:
    """A table. All packages without a problem share one line."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    colours = {"✓": "green", "!": "yellow", "✗": "red"}
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    fine = [c for c in result["checks"] if c["name"].startswith("package ") and _mark(c) == "✓"]
    for check in result["checks"]:
        if check in fine and check is not fine[0]:
            continue
        shared = {"name": "packages", "detail": f"{len(fine)} installed as required"} if check in fine else {}
        shown = {**check, **shared}
        mark = _mark(shown)
        detail = Text(f"{shown['detail']}\n{_fix(shown)}".rstrip())
        grid.add_row(Text(mark, style=colours[mark]), Text(shown["name"]), detail)
    failed = sum(not check["ok"] for check in result["checks"])
    warned = sum(_mark(check) == "!" for check in result["checks"])
    return Group(grid, Text(f"{_counted(failed, 'problem')}, {_counted(warned, 'warning')}"))


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'s' * (number != 1)}"
