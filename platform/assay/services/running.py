"""Whether the project's services are up, and how commands use them. Cheap, because every verb asks.

They are up while their supervisor holds `services.lock`, which the kernel frees when it dies, and `services.json`
reports that all of them have answered. That file holds addresses and no secret.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import InputError
from assay.files import read_json
from assay.services.credentials import read_secrets
from assay.state import CREDENTIALS, RAY_TOKEN, SERVICES_LOCK, SERVICES_STATUS

if TYPE_CHECKING:
    from assay.settings import Settings


@dataclass(frozen=True)
class Running:
    """Where the services answer: MLflow, Prefect's API, Ray (host:port), Ray's dashboard with its job server."""

    mlflow: str
    prefect: str
    ray: str
    dashboard: str


def running(state: Path) -> Running | None:
    """The services of the project whose state is kept here; None if they are not up."""
    if not supervised(state):
        return None
    status = read_status(state)
    with suppress(KeyError, TypeError):  # a damaged status
        return Running(**status["addresses"]) if status.get("ready") else None
    return None


def supervised(state: Path) -> bool:
    """Whether a supervisor lives. This takes a shared lock for a moment, which others may take too."""
    try:
        handle = os.open(state / SERVICES_LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def read_status(state: Path) -> dict[str, Any]:
    """What the supervisor wrote last; empty if it wrote nothing, or that is damaged."""
    with suppress(FileNotFoundError, InputError):
        return read_json(state / SERVICES_STATUS, "run `assay up`")
    return {}


def described(state: Path) -> tuple[str, str]:
    """The state of the services, and a command that would improve it; both empty if nothing runs."""
    found, status = running(state), read_status(state)
    if found is None:
        return ("being started or ended", "assay up") if supervised(state) else ("", "")
    pages = f"MLflow {found.mlflow}, Prefect {found.prefect.removesuffix('/api')}, Ray {found.dashboard}"
    services = status.get("services")
    states = services.items() if isinstance(services, dict) else ()
    sick = [f"{name} is {now}" for name, now in states if now != "healthy"]
    return (f"{', '.join(sick)}; {pages}", "assay up") if sick else (f"up: {pages}", "")


def enter(settings: Settings) -> None:
    """Let this process and its children use the services that are up, unless the user has named others."""
    found = running(settings.state)
    if found is not None:
        with suppress(OSError):  # without the password, another user's commands do without the services
            os.environ.update(variables(found, settings.state, os.environ))


def variables(found: Running, state: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that lead to the services, except those that are set. A password goes with its address only."""
    kept = read_secrets(state / CREDENTIALS)
    user, password = kept["user"], kept["password"]
    tracking = {
        "ASSAY_TRACKING_URI": found.mlflow,
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": password,
    }
    flows = {"PREFECT_API_URL": found.prefect, "PREFECT_API_AUTH_STRING": f"{user}:{password}"}
    ray = {
        "ASSAY_RAY_ADDRESS": found.ray,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(state / RAY_TOKEN),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # reach it on loopback, not at this machine's outer address
    }
    groups = (
        (("ASSAY_TRACKING_URI", "MLFLOW_TRACKING_URI"), tracking),
        (("PREFECT_API_URL",), flows),
        (("ASSAY_RAY_ADDRESS", "ASSAY_CLUSTER", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"), ray),
    )
    return {
        name: value
        for decided, values in groups
        if not any(environment.get(name) for name in decided)
        for name, value in values.items()
    }
