"""A Prefect server for one flow, where none is named. Import it after `server.prepare`: it imports Prefect."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from unittest.mock import patch

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_HOME,
    PREFECT_SERVER_API_AUTH_STRING,
    temporary_settings,
)

from assay.errors import Unavailable, last_line
from assay.system_errors import require_room
from pipelines.runtime.workspace import forget, watch

SECONDS = 10.0
ROOM = 20_000_000
"""Bytes that a new server's database and its log take."""
STARTS = 3
"""Times that a flow's own server is started, at most."""
STARTUP_FAILURE = 3
"""The exit code after which Prefect starts its private server anew."""


@contextmanager
def own_server() -> Iterator[str]:
    """The address of a private server with its own password, which ends with this process, even if that is killed.

    If the server is killed, it is started again; Prefect's client tries for a minute.

    Raises:
        Unavailable: it does not start.
    """
    require_room(PREFECT_HOME.value(), ROOM)  # else it would say so in a page of its own, after two minutes
    password = f"assay:{secrets.token_urlsafe(32)}"
    with temporary_settings({PREFECT_API_AUTH_STRING: password, PREFECT_SERVER_API_AUTH_STRING: password}):
        server = _Server()
        try:
            server.begin()
            yield server.api_url
        finally:
            server.end()


class _Process(subprocess.Popen[bytes]):
    """A server whose end, however it came, Prefect takes for a port that was in use: it starts another at once.

    Prefect would wait two minutes for one that was killed.
    """

    def poll(self) -> int | None:
        return None if super().poll() is None else STARTUP_FAILURE


class _Server(SubprocessASGIServer):
    """In a session of its own, so that its group can be watched, and no Ctrl-C ends it with the flow: it could not be
    told how the flow ended, and Prefect would try for a minute.
    """

    def __init__(self) -> None:
        if "lock" in vars(self):  # Prefect asks for its server again, and is given this one
            return
        super().__init__()
        self.said: Path = PREFECT_HOME.value() / "flow_server.log"
        self.starts = 0
        self.answers = False
        self.lock = Lock()

    @property
    def failure(self) -> Unavailable:
        text = self.said.read_text(errors="replace") if self.said.is_file() else ""
        causes = [line for line in text.splitlines() if "Error: " in line]
        why = f": {last_line(causes[-1])}" if causes else ""
        return Unavailable(f"the flow's own Prefect server does not start{why}; it wrote {self.said}")

    def begin(self) -> None:
        """Start it and wait for its answer, then keep it running."""
        try:
            self.start()
        except RuntimeError:  # no answer for two minutes, or no free port
            raise self.failure from None
        self.answers = True
        Thread(target=copy_context().run, args=(self.keep,), name="own server", daemon=True).start()

    def end(self) -> None:
        """Tell it what waits, and stop it. One that has never answered knows nothing yet, and is killed: it would
        hear a request to end only once it has started. Each step of its new database is one transaction.
        """
        if self.answers:
            _send_what_waits()
        with self.lock:
            if not self.answers and self.server_process is not None:
                self.server_process.kill()
            self.stop()

    def keep(self) -> None:
        """Start it again whenever it ends by itself, at the same address."""
        while (process := self.server_process) is not None:
            process.wait()
            with self.lock, suppress(Unavailable):
                if self.server_process is not process:
                    return
                self.server_process = self._run_uvicorn_command()
                continue
            return

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        if self.starts == STARTS:
            raise self.failure
        if self.server_process is not None:  # it has ended
            forget(self.server_process.pid)
        self.starts += 1
        with self.said.open("wb") as file:
            apart = partial(_Process, stdout=file, stderr=file, start_new_session=True)
            with patch.object(subprocess, "Popen", apart):
                process = super()._run_uvicorn_command()
        watch(process.pid)
        return process

    def stop(self) -> None:
        process = self.server_process
        super().stop()
        if process is not None:
            forget(process.pid)


def _send_what_waits() -> None:
    """Send the events and log lines that wait: to a server that has ended, Prefect would try for a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=SECONDS, at_exit=False)
