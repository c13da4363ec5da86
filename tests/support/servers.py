"""How tests start a server of another program: on a free port, waited for, and never left behind."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

START_SECONDS = 60.0
WAIT_SECONDS = 120.0


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, ready: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """The first true answer."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found = ready()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds:g} s")


def start(
    command: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str],
    user: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers; the kernel ends it if this process dies first."""
    prctl = ctypes.CDLL(None).prctl  # found before the fork
    main = threading.current_thread() is threading.main_thread()  # the kernel watches the thread that forked
    with log.open("ab") as output:
        server = subprocess.Popen(
            command, env=dict(environment), cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, user=user, group=None if user is None else pwd.getpwnam(user).pw_gid,
            preexec_fn=(lambda: prctl(1, int(signal.SIGQUIT))) if main else None,
        )  # fmt: skip
    limit = time.monotonic() + START_SECONDS
    while not ready():
        assert server.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < limit, log.read_text(errors="replace")
        time.sleep(0.05)
    return server


def stop(server: subprocess.Popen[bytes], number: int = signal.SIGINT) -> None:
    """Ask a server to end, and wait; what does not listen, or outlives it, ends by force."""
    server.send_signal(number)
    with suppress(subprocess.TimeoutExpired):
        server.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a web server in this process that answers every GET as told."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
