"""The processes of a project's setup: found by the mark in their environment, also where no supervisor lives."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.log import Log
from assay.services.net import MARK
from assay.services.ray import ray_folder
from assay.services.server import alive
from assay.state import state_folder

if TYPE_CHECKING:
    import psutil

SAVE_SECONDS = 60.0
"""What a training gets to save its checkpoint."""
_END_SECONDS = 5.0
_FLOW_RUN = "PREFECT__FLOW_RUN_ID"
_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


@dataclass(frozen=True)
class Work:
    """A flow run or a job: what it is, its first process, and those below."""

    name: str
    first: psutil.Process
    below: tuple[psutil.Process, ...]

    def ask_to_end(self) -> None:
        """As a cancellation does it: a flow run's process tells its own; a job's whole session is told."""
        with suppress(OSError):
            if self.name.startswith("job"):
                os.killpg(self.first.pid, signal.SIGTERM)
            else:
                os.kill(self.first.pid, signal.SIGTERM)

    def going(self) -> bool:
        return any(map(alive, (self.first, *self.below)))


def of_setup(root: Path) -> list[psutil.Process]:
    """All processes of the project's setup, less this one and those above it."""
    import psutil

    living = [process for process in psutil.process_iter() if alive(process)]
    below: dict[int, list[psutil.Process]] = {}
    for process in living:
        with suppress(psutil.Error):
            below.setdefault(process.ppid(), []).append(process)
    me = psutil.Process()
    mine = {me.pid, *(parent.pid for parent in me.parents())}
    found: dict[int, psutil.Process] = {}
    waiting = [process for process in living if process.pid not in mine and _belongs(process, root)]
    while waiting:
        process = waiting.pop()
        if process.pid not in found and process.pid not in mine:
            found[process.pid] = process
            waiting += below.get(process.pid, [])
    return list(found.values())


def _belongs(process: psutil.Process, root: Path) -> bool:
    """Marked, or one of Ray's that wrote its title over its environment: then by the files that it has open."""
    environment = _environment(process)
    if environment:
        return environment.get(MARK) == str(root)
    folder = ray_folder(state_folder(root))
    with suppress(Exception):  # gone meanwhile, or another user's
        return any(Path(file.path).is_relative_to(folder) for file in process.open_files())
    return False


def _environment(process: psutil.Process) -> dict[str, str]:
    with suppress(Exception):  # gone meanwhile, or another user's
        return dict(process.environ())
    return {}


def work(root: Path) -> list[Work]:
    """The flow runs and jobs that the setup runs now."""
    import psutil

    found = []
    for process in of_setup(root):
        environment = _environment(process)
        with suppress(psutil.Error):
            above = _environment(parent) if (parent := process.parent()) else {}
            for variable, kind in ((_FLOW_RUN, "flow run"), (_RAY_JOB, "job")):
                if variable in environment and variable not in above and _FLOW_RUN not in above:
                    name = f"{kind} (process {process.pid})"
                    found.append(Work(name, process, tuple(process.children(recursive=True))))
                    break
    return found


def end_work(root: Path, log: Log, seconds: float = SAVE_SECONDS) -> None:
    """Ask flow runs and jobs to save and end; what has not after a while is ended by force."""
    asked = work(root)
    for one in asked:
        one.ask_to_end()
    limit, told = time.monotonic() + seconds, 0.0
    while (going := [one for one in asked if one.going()]) and time.monotonic() < limit:
        if time.monotonic() > told:
            names = ", ".join(one.name for one in going)
            log(f"waiting for {names} to save and end, {limit - time.monotonic():.0f} s at most")
            told = time.monotonic() + 10
        time.sleep(0.1)
    for one in going:
        _kill([one.first, *one.below])


def sweep(root: Path) -> int:
    """End whatever is left of the setup, and remove Ray's sockets; how many processes there were."""
    import psutil

    ended: set[int] = set()
    limit = time.monotonic() + _END_SECONDS
    while left := of_setup(root):
        force = time.monotonic() > limit
        for process in left:
            with suppress(psutil.Error):
                process.kill() if force else process.terminate()
        ended |= {process.pid for process in left}
        psutil.wait_procs(left, timeout=_END_SECONDS / 2)
    for socket in ray_folder(state_folder(root)).glob("session_*/sockets/*"):
        socket.unlink(missing_ok=True)
    return len(ended)


def _kill(processes: list[psutil.Process]) -> None:
    import psutil

    for process in processes:
        with suppress(psutil.Error):
            process.kill()
