"""`assay doctor`: is everything there that a project needs, and how to mend what is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from assay.cli.output import AsJson, present


def doctor(as_json: AsJson = False) -> None:
    """Check this machine and this project; name what is wrong and how to mend it.

    Exit code 2 if anything fails; warnings alone are fine.

    Example: assay doctor --json
    """
    from assay.usecases.doctor import diagnose

    result = diagnose()
    try:
        present(result, as_json, _render)
    except ImportError:  # the doctor must speak even where Rich is what is missing
        typer.echo("\n".join(f"{_mark(c)} {c['name']}: {c['detail']} {_mend(c)}".rstrip() for c in result["checks"]))
    if not result["ok"]:
        raise typer.Exit(2)


def _mark(check: Mapping[str, Any]) -> str:
    """A cross for a failure, an exclamation mark for a warning, else a tick."""
    if not check["ok"]:
        return "✗"
    return "!" if check["fix"] else "✓"


def _mend(check: Mapping[str, Any]) -> str:
    return f"mend: {check['fix']}" if check["fix"] else ""


def _render(result: Mapping[str, Any]) -> Any:
    """A table; packages that are as they should be share one line."""
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
        shared = {"name": "packages", "detail": f"{len(fine)} as they should be"} if check in fine else {}
        shown = {**check, **shared}
        mark = _mark(shown)
        detail = Text(f"{shown['detail']}\n{_mend(shown)}".rstrip())
        grid.add_row(Text(mark, style=colours[mark]), Text(shown["name"]), detail)
    failed = sum(not check["ok"] for check in result["checks"])
    warned = sum(_mark(check) == "!" for check in result["checks"])
    verdict = f"{failed} to mend" if failed else "all is well"
    return Group(grid, Text(f"{verdict}{f', {warned} warnings' if warned else ''}"))
