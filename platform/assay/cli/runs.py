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
    if not result["runs"]:
        return "none found"
    width = max(len("experiment"), *(len(run["experiment"] or "") for run in result["runs"]))
    lines = [f"{'run':32}  {'started':16}  {'experiment':{width}}  status"]
    for run in result["runs"]:
        lines.append(f"{run['run_id']:32}  {run['started'][:16]}  {run['experiment'] or '':{width}}  {run['status']}")
        seen = [f"{n} {value:.4g}" for n, value in sorted(run["metrics"].items()) if n.startswith("val/")]
        lines += [f"  {line}" for line in ("  ".join(seen), run["reason"]) if line]
    return "\n".join(lines)
