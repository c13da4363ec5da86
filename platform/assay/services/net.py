"""Ports of this machine, and who listens on them."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from assay.errors import InputError

if TYPE_CHECKING:
    import psutil

HOST = "127.0.0.1"
MARK = "ASSAY_SERVICES"
"""The environment variable of every process of a setup: the project that it belongs to."""


def port_owner(port: int) -> str | None:
    """Who listens on a port of this machine, as far as can be known; None if it is free."""
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
    """Raise `InputError` if a port is taken, naming who has it and which one is free."""
    owner = port_owner(port)
    if owner is not None:
        free = next((p for p in range(max(port, 1023) + 1, 65536) if port_owner(p) is None), None)
        hint = f"use --port {free}" if free else "use a lower --port"
        raise InputError(f"port {port} is taken by {owner}; {hint}, or end that process")
