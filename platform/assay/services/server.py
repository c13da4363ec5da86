"""A server on this machine: how it starts, answers and ends.

A server runs in its own session, so that all of it ends together. When this process dies, whatever kills it, the
server gets SIGTERM (Linux). Its secrets travel in the environment, never on a command line.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import WorkError
from assay.log import Log
from assay.signals import handled_by, when_parent_dies

if TYPE_CHECKING:
    import psutil

START_SECONDS = 60.0
STOP_SECONDS = 10.0
ORPHAN_SECONDS = 1.0  # for what a server leaves behind
LOG_BYTES = 10_000_000
_POLL = 0.2


@dataclass(frozen=True)
class Service:
    """A program that can be started: how, where it answers, and where it writes its log.

    `healthy` takes the start of the process, in seconds since 1970. `after` names the service that must answer
    before this one is started.
    """

    name: str
    command: list[str]
    env: Mapping[str, str] = field(repr=False)
    folder: Path
    log: Path
    url: str
    healthy: Callable[[float], bool]
    after: str = ""


def child_environment(own: Mapping[str, str], without: Collection[str] = ()) -> dict[str, str]:
    """This environment for a server: without telemetry, unbuffered, and with the interpreter's programs found first."""
    from assay.program import SILENCE

    bin_folder = str(Path(sys.executable).parent)
    path = os.pathsep.join(filter(None, (bin_folder, os.environ.get("PATH"))))
    inherited = {name: value for name, value in os.environ.items() if name not in without}
    return {**inherited, **SILENCE, "PATH": path, "PYTHONUNBUFFERED": "1", **own}


class Stop:
    """Whether the user asked to stop. Signals only set it, so that they interrupt no code in the middle."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, *_: object) -> None:
        self.asked = True


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Ctrl-C, SIGTERM and a closed terminal set the `Stop` while this lasts; `nohup` keeps its meaning."""
    stop = Stop()
    with handled_by(stop):
        yield stop


class Server:
    """A started service. Use it as a context manager: nothing of it is left afterwards."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.started = time.time()
        handle = new_log(service.log)
        try:
            self.process = subprocess.Popen(
                service.command,
                cwd=service.folder,
                env=dict(service.env),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                start_new_session=True,
                umask=0o077,
                preexec_fn=when_parent_dies(signal.SIGTERM),
            )
        finally:
            os.close(handle)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def wait_healthy(self, stop: Stop, log: Log, seconds: float = START_SECONDS) -> bool:
        """Wait until the server answers; False if the user stopped it first.

        Raises:
            WorkError: it ended, or did not answer in time; with the last lines of its log.
        """
        name, started, logged = self.service.name, time.monotonic(), 0
        log(f"starting {name} (up to {seconds:.0f} s) ...")
        while not stop.asked:
            waited = time.monotonic() - started
            self.require_alive()
            if self.service.healthy(self.started):
                return True
            if waited > seconds:
                raise WorkError(f"{name} did not answer within {seconds:.0f} s{self.last_lines()}")
            if waited // 10 > logged:
                logged = int(waited // 10)
                log(f"starting {name}: {waited:.0f} s")
            time.sleep(_POLL)
        return False

    def wait_stop(self, stop: Stop) -> None:
        """Stay until the user asks to stop. Raises `WorkError` if the server ends by itself."""
        while not stop.asked:
            self.require_alive()
            time.sleep(_POLL)

    def require_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise WorkError(f"{self.service.name} ended by itself (exit code {code}){self.last_lines()}")

    def end(self, seconds: float = STOP_SECONDS) -> None:
        """Ask all of the server to end, and kill what has not after a while."""
        family = self._family()
        self.send(signal.SIGTERM)
        limit = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
        limit = min(limit, time.monotonic() + ORPHAN_SECONDS)
        while any(map(alive, family)) and time.monotonic() < limit:
            time.sleep(0.05)
        self.send(signal.SIGKILL)
        for member in filter(alive, family):
            with suppress(Exception):
                member.kill()
        self.process.wait()

    def send(self, number: int) -> None:
        """Signal the server's session."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def _family(self) -> list[psutil.Process]:
        """The children and theirs, also those that left the server's session."""
        import psutil

        with suppress(psutil.Error):
            return list(psutil.Process(self.process.pid).children(recursive=True))
        return []

    def last_lines(self, count: int = 15) -> str:
        lines = self.service.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
        return "; the end of its log, {}:\n{}".format(self.service.log, "\n".join(lines) or "(empty)")


def alive(process: psutil.Process) -> bool:
    """Whether a process runs; a zombie does not."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def new_log(file: Path) -> int:
    """A handle on an empty log that only its owner can read; the previous one is kept next to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        file.replace(file.with_suffix(".previous.log"))
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def limit_log(file: Path, size: int = LOG_BYTES) -> None:
    """Start a log again once it is too large, while its server keeps appending to it."""
    with suppress(FileNotFoundError):
        if file.stat().st_size > size:
            shutil.copy(file, file.with_suffix(".previous.log"))
            os.truncate(file, 0)
