"""Which Prefect server this process talks to: a named one that answers, or its own for as long as it runs."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from assay.errors import InputError, Unavailable, last_line
from assay.http import NoAnswer, ask, basic_login
from assay.log import Log
from assay.redaction import hide_login
from assay.state import PREFECT
from assay.system_errors import require_room

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from assay.settings import Settings

SECONDS = 10.0
ROOM = 20_000_000
"""Bytes that a new server's database and its log take."""
STARTS = 3
"""Times that a flow's own server is started, at most, until it answers."""
STARTUP_FAILURE = 3
"""The exit code after which Prefect starts its private server anew."""
NO_SERVER = "no Prefect server: run `assay up`"


def prepare(settings: Settings) -> None:
    """Let Prefect keep its state in the project, and serve itself if no server is named.

    Call this before Prefect is imported, which reads the environment then.
    """
    from assay.program import start_program

    start_program()
    home = settings.state / PREFECT
    home.mkdir(parents=True, exist_ok=True)  # Prefect creates one level only
    defaults = {
        "ASSAY_PROJECT": str(settings.root),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextmanager
def serving(settings: Settings, who: str, log: Log) -> Iterator[None]:
    """A server for flows of this process: the named one, which must answer, else a private one for the block.

    Flows with a private server take turns from before its start: two such servers would share one SQLite file.
    """
    from pipelines.runtime.workspace import workspace

    prepare(settings)
    if named():
        require_server()
        yield
        return
    with workspace(settings.root, who, log), own_server():
        yield


def named() -> bool:
    """Whether a server is named, in the environment or in Prefect's profile."""
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


@contextmanager
def own_server() -> Iterator[str]:
    """The address of a private server with its own password, which ends with this process, even if that is killed.

    Raises:
        Unavailable: it does not start.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_HOME,
        PREFECT_SERVER_API_AUTH_STRING,
        temporary_settings,
    )

    from pipelines.runtime.workspace import forget, watch

    said = PREFECT_HOME.value() / "flow_server.log"

    class Server(SubprocessASGIServer):
        """In a session of its own. Signals to this process's group, as Ctrl-C is one, would end it with the flow: it
        could not be told how the flow ended, and Prefect would try for a minute."""

        starts = 0

        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            if self.starts == STARTS:
                raise _no_start(said)
            self.starts += 1
            with said.open("wb") as file:
                apart = partial(_Process, stdout=file, stderr=file, start_new_session=True)
                with patch.object(subprocess, "Popen", apart):
                    return super()._run_uvicorn_command()

    require_room(PREFECT_HOME.value(), ROOM)  # else it would say so in a page of its own, after two minutes
    password = f"assay:{secrets.token_urlsafe(32)}"
    with temporary_settings({PREFECT_API_AUTH_STRING: password, PREFECT_SERVER_API_AUTH_STRING: password}):
        server = Server()
        try:
            server.start()
        except RuntimeError:  # no answer for two minutes, or no free port
            raise _no_start(said) from None
        assert server.server_process is not None
        pid = server.server_process.pid
        watch("process", pid)
        try:
            yield server.api_url
        finally:
            _send_what_waits()
            server.stop()
            forget("process", pid)


class _Process(subprocess.Popen[bytes]):
    """A server whose end, however it came, Prefect takes for a port that was in use: it starts another at once.

    Prefect would wait two minutes for one that was killed.
    """

    def poll(self) -> int | None:
        return None if super().poll() is None else STARTUP_FAILURE


def _no_start(said: Path) -> Unavailable:
    text = said.read_text(errors="replace") if said.is_file() else ""
    causes = [line for line in text.splitlines() if "Error: " in line]
    why = f": {last_line(causes[-1])}" if causes else ""
    return Unavailable(f"the flow's own Prefect server does not start{why}; it wrote {said}")


def _send_what_waits() -> None:
    """Send the events and log lines that wait: to a server that has ended, Prefect would try for a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=SECONDS, at_exit=False)


def require_server() -> None:
    """The named server must answer, know the password and be of this version of Prefect.

    Raises:
        Unavailable: nothing is named, or nothing answers.
        InputError: the password is wrong, or the server is of another version.
    """
    import prefect
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    address = PREFECT_API_URL.value()
    if not address:
        raise Unavailable(NO_SERVER)
    user, _, password = (PREFECT_API_AUTH_STRING.value() or "").partition(":")
    shown = hide_login(address)
    try:
        found = ask("GET", f"{address.rstrip('/')}/admin/version", basic_login(user, password), seconds=SECONDS)
    except NoAnswer as error:
        raise Unavailable(f"no Prefect server answers at {shown} ({error}): run `assay up`") from None
    if found.status == 401:
        raise InputError(
            f"PREFECT_API_AUTH_STRING: the Prefect server at {shown} refuses it; write it as user:password"
        )
    try:
        version = str(found.json())
    except ValueError:
        raise InputError(
            f"PREFECT_API_URL: what answers at {shown} is not a Prefect server; its address ends in /api"
        ) from None
    if found.status != 200:
        raise InputError(f"PREFECT_API_URL: {shown} answers {found.status}; its address ends in /api")
    if version.split(".")[:2] != prefect.__version__.split(".")[:2]:
        here = prefect.__version__
        raise InputError(f"the Prefect server at {shown} is version {version}, here is {here}: install the same")


@contextmanager
def connected() -> Iterator[SyncPrefectClient]:
    """A client of the named server."""
    from prefect.client.orchestration import get_client

    require_server()
    with get_client(sync_client=True) as client:
        yield client
