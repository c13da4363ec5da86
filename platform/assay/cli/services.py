"""`assay up`, `assay down`: the servers of a team on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from assay.cli.output import AsJson, log, present, table

Ports = Annotated[
    int | None,
    typer.Option(
        "--ports",
        min=0,
        max=65532,
        help="The first of four ports in a row; remembered. 0: the usual 5000, 4200, 8265 and 6379.",
        show_default=False,
    ),
]


def up(ports: Ports = None, as_json: AsJson = False) -> None:
    """Start MLflow, Prefect with a worker, and Ray on this machine, behind a password; wait until all are healthy.

    They go on until `assay down`. What runs already is left alone, what died is started again.

    Example: assay up --ports 5100
    """
    from assay.services.setup import up as start
    from assay.settings import Settings

    result = start(Settings(), ports, log)
    if result is None:
        log("stopped; nothing that was begun is left running")
        raise typer.Exit(130)
    log("all are healthy" if result["started"] else "all were up and are healthy")
    present(result, as_json, _pages)


def down(as_json: AsJson = False) -> None:
    """End the project's services. Flow runs and jobs get up to 60 s to save a checkpoint.

    Example: assay down
    """
    from assay.services.setup import down as end
    from assay.settings import Settings

    present(end(Settings(), log), as_json, _ended)


def _pages(result: Mapping[str, Any]) -> Any:
    return table(page_rows(result))


def page_rows(result: Mapping[str, Any]) -> dict[str, str]:
    """The pages, and how to enter each; no secret."""
    from rich.markup import escape

    rows = {
        "MLflow": f"{result['mlflow']}  user {result['user']}",
        "Prefect": f"{result['prefect']}  asks for user:password",
        "Ray": f"{result['ray']}  asks for a token",
        "password": f"in {result['credentials_file']}",
        "token": f"in {result['ray_token_file']}",
    }
    return {name: escape(value) for name, value in rows.items()}


def _ended(result: Mapping[str, Any]) -> str:
    if not result["ended"]:
        return "nothing was running"
    return f"ended {result['ended']} processes; nothing is left"
