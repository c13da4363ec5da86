"""`assay ui`: show runs and models in MLflow's pages, and the other pages that `assay up` has started."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.output import AsJson, log, present

if TYPE_CHECKING:
    from assay.services.running import Running
    from assay.settings import Settings

Port = Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on, at 127.0.0.1.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")]


def ui(port: Port = 5000, no_browser: NoBrowser = False, as_json: AsJson = False) -> None:
    """Show the pages of MLflow, Prefect and Ray if `assay up` has started them. If not, run MLflow's until Ctrl-C.

    If ASSAY_TRACKING_URI is the address of a server, show and open that one instead.

    Example: assay ui --port 5050
    """
    from assay.program import start_program
    from assay.redaction import hide_login
    from assay.services.running import running
    from assay.settings import Settings

    start_program()
    settings = Settings()
    browse = sys.stdout.isatty() and not no_browser and not as_json
    found = running(settings.state)
    if settings.tracking.startswith(("http://", "https://")) and (found is None or settings.tracking != found.mlflow):
        result = {"url": hide_login(settings.tracking), "user": None, "credentials_file": None}
        _show(result, as_json, browse)
    elif found is not None:
        _show(_services(settings, found), as_json, browse)
    else:
        _serve(settings, port, as_json, browse)


def _services(settings: Settings, found: Running) -> dict[str, Any]:
    """The pages of all running services; MLflow's is the one to open."""
    from assay.services.credentials import load_credentials
    from assay.services.setup import pages
    from assay.state import CREDENTIALS

    shown = pages(asdict(found), settings.state, load_credentials(settings.state / CREDENTIALS))
    return {"url": shown["mlflow"], **shown}


def _serve(settings: Settings, port: int, as_json: bool, browse: bool) -> None:
    from assay.services.credentials import load_credentials
    from assay.services.mlflow import mlflow_service, require_login
    from assay.services.net import require_free
    from assay.services.server import Server, stop_signals
    from assay.state import CREDENTIALS

    _require_runs(settings)
    require_free(port)
    credentials = load_credentials(settings.state / CREDENTIALS)
    service = mlflow_service(settings, port, credentials)
    with stop_signals() as stop, Server(service) as server:
        if server.wait_healthy(stop, log):
            require_login(service.url, credentials)
            shown = {"url": service.url, "user": credentials.user, "credentials_file": str(credentials.file)}
            _show(shown, as_json, browse)
            log("press Ctrl-C to stop it")
            server.wait_stop(stop)
    log(f"{service.name} has stopped")


def _require_runs(settings: Settings) -> None:
    from assay.errors import InputError
    from assay.services.stores import sqlite_file

    database = sqlite_file(settings.tracking)
    if database is not None and not database.is_file():
        raise InputError(f"{database}: no runs yet: run `make demo` or `assay train EXPERIMENT`")


def _show(result: Mapping[str, Any], as_json: bool, browse: bool) -> None:
    present(result, as_json, _render)
    if browse:
        import webbrowser

        webbrowser.open(result["url"])


def _render(result: Mapping[str, Any]) -> Any:
    from assay.cli.output import table
    from assay.cli.services import page_rows

    if "prefect" in result:
        return table(page_rows(result))
    rows = {"address": result["url"]}
    if result["credentials_file"]:
        rows |= {"user": result["user"], "password": f"in {result['credentials_file']}"}
    return table(rows)
