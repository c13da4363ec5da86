"""Ray's head on this machine: workers, trials, and the job server of its dashboard, on loopback and behind a token."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from assay.files import private_folder
from assay.http import NoAnswer, ask
from assay.services.net import HOST
from assay.services.server import Service, child_environment
from assay.state import LOGS, RAY_TOKEN, SERVICES_RAY
from assay.workers.ray_environment import RAY_ENVIRONMENT, with_room_for_sockets

HEAD_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its servers listen on 127.0.0.1 alone, as they do on those systems
    "DASHBOARD_METRIC_PORT": "-1",  # an invalid port: its metrics would be served to anybody
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # what runs was asked to end before
    "RAY_ROTATION_MAX_BYTES": "10000000",
    "RAY_ROTATION_BACKUP_COUNT": "1",
}

OF_COMMANDS = ("ASSAY_PROJECT", "ASSAY_CLUSTER", "ASSAY_RAY_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN")
"""Set for a command; a job that runs here must not inherit them."""


def ray_service(state: Path, port: int, dashboard: int, own: dict[str, str]) -> Service:
    """Ray's head with its dashboard; jobs find `own` in their environment."""
    folder, url = ray_folder(state), f"http://{HOST}:{dashboard}"
    private_folder(folder.parent)  # Ray opens its own folder to everybody
    options = {
        "node-ip-address": HOST,
        "port": port,
        "dashboard-host": HOST,
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": 0,
        "min-worker-port": 0,  # with the maximum: any free ones
        "max-worker-port": 0,
        "num-cpus": len(os.sched_getaffinity(0)),
        "temp-dir": folder,
    }
    command = [sys.executable, "-m", "assay.services.ray_head", "start", "--head", "--block", "--no-monitor"]
    command += [
        "--disable-usage-stats",
        *(word for name, value in options.items() for word in (f"--{name}", str(value))),
    ]
    token = state / RAY_TOKEN
    environment = child_environment(
        {**RAY_ENVIRONMENT, **own, **HEAD_ENVIRONMENT, "RAY_AUTH_TOKEN_PATH": str(token)}, without=OF_COMMANDS
    )

    def healthy(_started: float) -> bool:
        allowed = {"Authorization": f"Bearer {token.read_text(encoding='utf-8', errors='replace').strip()}"}
        try:
            nodes = ask("GET", f"{url}/nodes?view=hostNameList", allowed).text
            return '"hostNameList": ["' in nodes and ask("GET", f"{url}/api/jobs/", allowed).status == 200
        except NoAnswer:
            return False

    return Service("Ray", command, environment, state, state / LOGS / "ray.log", url, healthy)


def ray_folder(state: Path) -> Path:
    """The folder of the Ray that `assay up` starts; no two projects share one."""
    project = hashlib.sha256(str(state).encode()).hexdigest()[:8]
    return with_room_for_sockets(state / SERVICES_RAY, f"assay-{os.getuid()}-{project}/ray")
