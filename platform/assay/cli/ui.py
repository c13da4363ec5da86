"""`assay ui`: look at runs and models in MLflow's pages, on this machine only."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.output import AsJson, present, say

if TYPE_CHECKING:
    from assay.services import Credentials, Service
    from assay.settings import Settings

Port = Annotated[int, typer.Option(min=1, max=65535, help="Where to listen, on 127.0.0.1.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")]


def ui(port: Port = 5000, no_browser: NoBrowser = False, as_json: AsJson = False) -> None:
    """Start MLflow's pages on the project's runs, behind a password, until Ctrl-C.

    With a tracking server of its own (ASSAY_TRACKING_URI=https://...), show and open that one instead.

    Example: assay ui --port 5050
    """
    from assay.services import without_password
    from assay.settings import Settings, quiet

    quiet()
    settings = Settings()
    browse = sys.stdout.isatty() and not no_browser and not as_json
    if settings.tracking.startswith(("http://", "https://")):
        result = {"url": without_password(settings.tracking), "user": None, "credentials_file": None}
        _show(result, as_json, browse)
    else:
        _serve(settings, port, as_json, browse)


def _serve(settings: Settings, port: int, as_json: bool, browse: bool) -> None:
    from assay.services import Server, load_credentials, mlflow_service, require_free, stop_signals

    _require_runs(settings)
    require_free(port)
    credentials = load_credentials(settings.state / "credentials.json")
    service = mlflow_service(settings, port, credentials)
    with stop_signals() as stop, Server(service) as server:
        if server.wait_healthy(stop, say):
            _require_login(service, credentials)
            shown = {"url": service.url, "user": credentials.user, "credentials_file": str(credentials.file)}
            _show(shown, as_json, browse)
            say("press Ctrl-C to end it")
            server.wait_stop(stop)
    say(f"{service.name} has ended")


def _require_runs(settings: Settings) -> None:
    from assay.errors import InputError
    from assay.services import sqlite_file

    database = sqlite_file(settings.tracking)
    if database is not None and not database.is_file():
        raise InputError(f"{database}: nothing to show yet: run `make demo` or `assay train EXPERIMENT`")


def _require_login(service: Service, credentials: Credentials) -> None:
    """The password of the file must open the door: MLflow keeps the one it was first started with."""
    from assay.errors import InputError
    from assay.services import http_status

    route = f"{service.url}/api/2.0/mlflow/experiments/search?max_results=1"
    status = http_status(route, credentials.user, credentials.password, seconds=20)
    if status == 401:
        database = credentials.file.with_name("auth.db")
        raise InputError(
            f"{credentials.file}: its password is not the one that {database} was made with; bring the old file "
            "back, or remove auth.db (and with it the users you added) and start again"
        )


def _show(result: Mapping[str, Any], as_json: bool, browse: bool) -> None:
    present(result, as_json, _render)
    if browse:
        import webbrowser

        webbrowser.open(result["url"])


def _render(result: Mapping[str, Any]) -> Any:
    from rich.markup import escape

    from assay.cli.output import table

    rows = {"address": result["url"]}
    if result["credentials_file"]:
        rows |= {"user": result["user"], "password": f"in {result['credentials_file']}"}
    return table({name: escape(str(value)) for name, value in rows.items()})
