"""How our own Ray runs, wherever it is started: on a laptop, by `assay up`, on the nodes of a cluster."""

from __future__ import annotations

import tempfile
from pathlib import Path

SOCKET_PATH = 107  # bytes that Linux allows
SOCKET_NAME = len("/session_2026-11-22_04-40-48_470847_4194304/sockets/dash_MetricsHead")


RAY_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default of 2 s delays the start and the end of each training
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",  # asks a dashboard that does not run
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",  # the controller works in the process that people look at
    "RAY_enable_metrics_collection": "0",  # nobody scrapes it here, and on two cores it shows
    "MALLOC_ARENA_MAX": "1",  # Ray trains in a second thread, whose own arena gives memory back at each step
    "RAY_prestart_worker_first_driver": "0",  # `ray.init` would wait for each of them, forever if one dies
    "RAY_worker_niceness": "0",  # at the default of 15 a step waits for whatever else wakes up
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a stray call must fail, not start another Ray with open ports
}
"""Set for every Ray that Assay starts."""


def with_room_for_sockets(inside: Path, outside: str) -> Path:
    """`inside`, the project, if the paths of Ray's sockets fit there, else a folder below the temporary one."""
    fits = len(str(inside)) + SOCKET_NAME <= SOCKET_PATH
    return inside if fits else Path(tempfile.gettempdir()) / outside
