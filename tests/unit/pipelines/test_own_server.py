"""A flow's own Prefect server that ends by itself: as it starts, later, or on a database that it cannot read."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_HOME, temporary_settings

from assay.errors import Unavailable
from assay.http import NoAnswer, ask
from assay.signals import Signalled, interruptible
from pipelines.runtime import workspace
from pipelines.runtime.own_server import STARTS, own_server
from tests.support.servers import wait_for

ANSWERS = """
import http.server
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""
KILLED_ONCE = "import os, signal\nif len(before) == 0: os.kill(os.getpid(), signal.SIGKILL)\n" + ANSWERS
SLOW = """
import signal, time
def end(*_):
    print(end="t", file=open({starts!r}, "a"), flush=True)
signal.signal(signal.SIGTERM, end)
print(end="r", file=open({starts!r}, "a"), flush=True)
while True:
    time.sleep(1)
"""
UNREADABLE = "print('x.DatabaseError: file is not a database\\nApplication startup failed.')\nsys.exit(3)\n"


def serve_by(text: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have Prefect run this text as its server; the file that counts its starts."""
    program, starts = home / "python", home / "starts"
    starts.touch()
    counts = f"import sys\nstarts = open({str(starts)!r}, 'r+')\nbefore = starts.read()\nprint(end='x', file=starts)\n"
    program.write_text(f"#!{sys.executable}\n{counts}starts.close()\n{text}")
    program.chmod(0o755)
    monkeypatch.setattr("prefect.server.api.server.sys.executable", str(program))
    monkeypatch.setattr(workspace, "_watchdog", None)
    return starts


def test_a_server_that_is_killed_as_it_starts_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = serve_by(KILLED_ONCE, tmp_path, monkeypatch)
    told: list[str] = []
    monkeypatch.setattr("pipelines.runtime.own_server._send_what_waits", lambda: told.append("all"))
    with temporary_settings({PREFECT_HOME: tmp_path}), own_server() as address:
        assert ask("GET", f"{address}/health").status == 200
        assert SubprocessASGIServer().api_url == address  # as Prefect's clients ask for it
    assert told == ["all"]
    assert starts.read_text() == "xx"


def test_a_server_that_never_starts_is_one_line_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = serve_by(UNREADABLE, tmp_path, monkeypatch)
    with (
        temporary_settings({PREFECT_HOME: tmp_path}),
        pytest.raises(Unavailable, match="start: x.DatabaseError: file is not a database; it wrote") as error,
        own_server(),
    ):
        pass
    assert str(tmp_path / "flow_server.log") in str(error.value)
    assert starts.read_text() == "x" * STARTS


def test_a_server_that_is_killed_later_is_started_again_at_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = serve_by(ANSWERS, tmp_path, monkeypatch)
    with temporary_settings({PREFECT_HOME: tmp_path}), own_server() as address:
        (process,) = (child for child in psutil.Process().children() if str(tmp_path) in " ".join(child.cmdline()))
        process.kill()
        wait_for("the second start", lambda: starts.read_text() == "xx")
        wait_for("an answer", lambda: answers(f"{address}/health"))
    assert not [child for child in psutil.Process().children() if str(tmp_path) in " ".join(child.cmdline())]


def test_ctrl_c_while_it_starts_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = serve_by(SLOW.format(starts=str(tmp_path / "starts")), tmp_path, monkeypatch)

    def interrupt() -> None:
        wait_for("the server", lambda: starts.read_text() == "xr")
        os.kill(os.getpid(), signal.SIGINT)

    with temporary_settings({PREFECT_HOME: tmp_path}), ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        with pytest.raises(Signalled), interruptible(), own_server():
            pass
    assert starts.read_text() == "xr"  # killed, not asked to end
    assert not [child for child in psutil.Process().children() if str(tmp_path) in " ".join(child.cmdline())]


def answers(address: str) -> bool:
    try:
        return ask("GET", address).status == 200
    except NoAnswer:
        return False
