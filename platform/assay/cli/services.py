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
        help="The first of four consecutive ports; remembered. 0 restores the usual 5000, 4200, 8265 and 6379.",
        show_default=False,
    ),
]


def up(ports: Ports = None, as_json: AsJson = False) -> None:
    """Start MLflow, Prefect with a worker, and Ray on this machine, behind a password. Waits until all are healthy.

    They run until `assay down`. Starts only what is not running yet.

    Example: assay up --ports 5100
    """
    from assay.services.setup import up as start
    from assay.settings import Settings

    result = start(Settings(), ports, log)
    if result is None:
        log("stopped; everything that was started has been shut down")
        raise typer.Exit(130)
    log("all services are healthy" if result["started"] else "all services were already running and are healthy")
    present(result, as_json, _pages)


def down(as_json: AsJson = False) -> None:
    """Stop the project's services. Flow runs and jobs get up to 60 s to save a checkpoint.

    Example: assay down
    """
    from assay.services.setup import down as end
    from assay.settings import Settings

    present(end(Settings(), log), as_json, _ended)


def _pages(result: Mapping[str, Any]) -> Any:
    return table(page_rows(result))


def page_rows(result: Mapping[str, Any]) -> dict[str, str]:
    """The address of each page and how to log in; no secret."""
    return {
        "MLflow": f"{result['mlflow']}  user {result['user']}",
        "Prefect": f"{result['prefect']}  log in with user:password",
        "Ray": f"{result['ray']}  log in with the token",
        "password": f"in {result['credentials_file']}",
        "token": f"in {result['ray_token_file']}",
    }


def _ended(result: Mapping[str, Any]) -> str:
    if not result["ended"]:
        return "nothing was running"
    return f"stopped {result['ended']} processes"
