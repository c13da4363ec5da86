"""Prefect's server and the worker that runs the project's flows. Both keep their state below `.assay/prefect`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from assay.http import NoAnswer, ask, basic_login, status_of
from assay.services.credentials import Credentials
from assay.services.net import HOST
from assay.services.server import Service, child_environment
from assay.state import LOGS, PREFECT

POOL = "assay"
_CLOCKS = 1.0  # seconds by which a heartbeat may seem older than the worker


def prefect_service(state: Path, port: int, credentials: Credentials) -> Service:
    """Prefect's server: loopback only, with a password, without telemetry."""
    home, url = _home(state), f"http://{HOST}:{port}"
    login = f"{credentials.user}:{credentials.password}"
    own = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_API_AUTH_STRING": login,
        "PREFECT_SERVER_API_AUTH_STRING": login,
        "PREFECT_UI_API_URL": f"{url}/api",
        "PREFECT_UI_STATIC_DIRECTORY": str(home / "pages"),  # else it writes its pages next to its code
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]

    def healthy(_started: float) -> bool:
        return status_of(f"{url}/api/health") == 200

    log = state / LOGS / "prefect.log"
    return Service("Prefect", command, child_environment(own), home, log, url, healthy)


def worker_service(state: Path, api: str, credentials: Credentials, own: dict[str, str]) -> Service:
    """The project's worker; healthy once the server has had a heartbeat from it since it started."""
    own = {**own, "PREFECT_HOME": str(_home(state)), "ASSAY_PROJECT": str(state.parent)}
    command = [sys.executable, "-m", "pipelines", "worker"]
    workers = f"{api}/work_pools/{POOL}/workers/filter"

    def healthy(started: float) -> bool:
        try:
            found = ask("POST", workers, basic_login(credentials.user, credentials.password), body={}).json()
        except (NoAnswer, ValueError):
            return False
        return any(_seconds(heartbeat) > started - _CLOCKS for heartbeat in _heartbeats(found))

    log = state / LOGS / "worker.log"
    return Service("Prefect worker", command, child_environment(own), state.parent, log, "", healthy, after="Prefect")


def _home(state: Path) -> Path:
    home = state / PREFECT
    home.mkdir(parents=True, exist_ok=True)
    return home


def _heartbeats(workers: Any) -> list[str]:
    """The times of the workers' last heartbeats; none in what is not a list of workers, such as a refusal."""
    listed = workers if isinstance(workers, list) else []
    return [worker["last_heartbeat_time"] for worker in listed if worker.get("last_heartbeat_time")]


def _seconds(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp()
