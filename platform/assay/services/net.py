"""Ports of this machine and plain HTTP: who listens, and what answers."""

from __future__ import annotations

import base64
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from assay.errors import InputError

if TYPE_CHECKING:
    import psutil

HOST = "127.0.0.1"
MARK = "ASSAY_SERVICES"
"""The environment variable of every process of a setup: the project that it belongs to."""


def port_owner(port: int) -> str | None:
    """Who listens on a port of this machine, as far as it may be known; None if it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return "the system (ports below 1024 are reserved)"
        except OSError:
            return _listener(port)
    return None


def _listener(port: int) -> str:
    try:
        import psutil

        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return _named(psutil.Process(connection.pid))
    except Exception:  # noqa: S110 - a missing psutil, a vanished process or no permission: the name stays unknown
        pass
    return "another process"


def _named(owner: psutil.Process) -> str:
    project = None
    with suppress(Exception):  # its environment may not be read
        project = owner.environ().get(MARK)
    return f"{owner.name()} (pid {owner.pid}{f', of {project}' if project else ''})"


def require_free(port: int) -> None:
    """Raise `InputError` if a port is taken: by whom, and which one is free."""
    owner = port_owner(port)
    if owner is not None:
        free = next((p for p in range(max(port, 1023) + 1, 65536) if port_owner(p) is None), None)
        mend = f"use --port {free}" if free else "use a lower --port"
        raise InputError(f"port {port} is taken by {owner}; {mend}, or end that process")


def answer(
    url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None, seconds: float = 3.0
) -> tuple[int | None, bytes]:
    """The status and body of a GET, or of a POST where there is a body of JSON to send; (None, b"") if nothing answers.

    Asks directly, past any proxy.
    """
    import http.client
    import urllib.error
    import urllib.request

    kind = {"Content-Type": "application/json"} if body is not None else {}
    request = urllib.request.Request(url, body, {**kind, **(headers or {})})  # noqa: S310 - from the settings
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds) as reply:
            return int(reply.status), reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except (OSError, http.client.HTTPException, ValueError):
        return None, b""


def http_status(url: str, headers: Mapping[str, str] | None = None, seconds: float = 3.0) -> int | None:
    """The status of a GET, None if nothing answers."""
    return answer(url, headers, seconds=seconds)[0]


def basic(user: str, password: str) -> dict[str, str]:
    """The header that says who asks."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
