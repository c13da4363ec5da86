"""`assay runs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from assay.cli.output import AsJson, present


def runs(
    kind: Annotated[str, typer.Option(help="run, search or trial.")] = "run",
    experiment: Annotated[str | None, typer.Option(help="Only runs of this experiment.")] = None,
    limit: Annotated[int, typer.Option(help="List at most this many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, searches or the trials of searches, newest first.

    Example: assay runs --kind search
    """
    from assay.settings import Settings
    from assay.usecases.runs import list_runs

    present(list_runs(kind, experiment, limit, Settings()), as_json, _table)


def _table(result: Mapping[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    if not result["runs"]:
        return "none found"
    grid = Table("run", box=None)
    grid.columns[0].min_width = 32  # ids get copied
    for name in ("started", "experiment", "status", "val metrics", "reason"):
        grid.add_column(name)
    for run in result["runs"]:
        seen = " ".join(f"{n.removeprefix('val/')} {v:.4g}" for n, v in run["metrics"].items() if n.startswith("val/"))
        cells = (run["run_id"], run["started"][:16], run["experiment"] or "", run["status"], seen, run["reason"])
        grid.add_row(*map(Text, cells))
    return grid
