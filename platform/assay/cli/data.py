"""`assay data`: prepare, add, list and check dataset versions."""

from __future__ import annotations

import typer

app = typer.Typer(help="Datasets: import, version, inspect.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List."""
