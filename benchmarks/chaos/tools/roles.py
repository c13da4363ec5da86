"""The processes of a command, by what they do for it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil

WORDS = {
    "raylet": ("raylet",),
    "gcs": ("gcs_server",),
    "controller": ("ray::TrainController",),
    "worker": ("ray::",),
    "watchdog": ("assay.tracking.watchdog", "watchdog.py"),
    "recorder": ("assay.tracking.process",),
    "prefect server": ("prefect.server",),
    "assay": ("-m assay ", "bin/assay "),
}
ROLES = ("driver", "group", *WORDS)


def find(pid: int) -> dict[str, list[psutil.Process]]:
    """The living processes of a command by role; the `driver` is its first."""
    found: dict[str, list[psutil.Process]] = {}
    with suppress(psutil.Error):
        first = psutil.Process(pid)
        if first.status() == psutil.STATUS_ZOMBIE:
            return {}
        found["driver"] = found["group"] = [first]
        for child in first.children(recursive=True):
            with suppress(psutil.Error):
                role = _role(child)
                if role:
                    found.setdefault(role, []).append(child)
    return found


def _role(process: psutil.Process) -> str | None:
    text = f"{process.name()} {' '.join(process.cmdline())} "
    return next((role for role, words in WORDS.items() if any(word in text for word in words)), None)


def strike(role: str, victim: psutil.Process, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process, or to the whole group of which it is the first."""
    with suppress(ProcessLookupError, psutil.Error):
        if role == "group":
            os.killpg(victim.pid, number)
        else:
            victim.send_signal(number)
