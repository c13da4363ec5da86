"""`assay ui`: the real server on a real store, seen from outside."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from assay.errors import InputError, WorkError
from assay.redaction import hide_login
from assay.services.credentials import load_credentials
from assay.services.server import Server, Service, Stop
from assay.services.stores import sqlite_file
from assay.settings import Settings
from assay.tracking.tracker import Tracker
from tests.support.servers import free_port

PROGRAM = """
import sys, typer
from assay.cli.ui import ui
from assay.errors import AssayError
app = typer.Typer()
app.command()(ui)
try:
    app()
except AssayError as error:
    print("error:", error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@dataclass
class Running:
    """A started `assay ui`, and what it printed."""

    process: subprocess.Popen[str]
    folder: Path
    port: int
    printed: dict[str, Any]
    family: list[psutil.Process]

    def get(self, route: str, signed: bool = True, password: str | None = None) -> tuple[int, bytes]:
        kept = json.loads((self.folder / ".assay/credentials.json").read_text())
        token = base64.b64encode(f"{kept['user']}:{password or kept['password']}".encode()).decode()
        headers = {"Authorization": f"Basic {token}"} if signed else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{route}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def start(folder: Path, port: int, **env: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "ASSAY_"))}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--port", str(port), "--json"],
        cwd=folder,
        env=inherited | {"ASSAY_PROJECT": str(folder)} | env,
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr").open("w"),
        text=True,
    )


def finish(folder: Path, port: int, **env: str) -> tuple[int, str, str]:
    with start(folder, port, **env) as process:
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, out, (folder / "stderr").read_text()


def gone(family: list[psutil.Process], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text("datasets: {}\n")
    return tmp_path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("my project")
    (folder / "params.yaml").write_text("datasets: {}\n")
    tracker = Tracker(Settings(project=folder, ASSAY_TRACKING_URI=f"sqlite:///{folder}/.assay/mlflow.db"))
    monkey = pytest.MonkeyPatch()
    monkey.setenv("MLFLOW_TRACKING_URI", "")  # MLflow sets it for the whole process: undone at the end
    place = (folder / ".assay/artifacts/digits").as_uri()
    run = tracker._client.create_run(tracker._client.create_experiment("digits", place), run_name="tiny")
    tracker.log_text(run.info.run_id, "report.txt", "half of it is right")
    port = free_port()
    process = start(folder, port)
    assert process.stdout is not None
    family: list[psutil.Process] = []
    try:
        line = process.stdout.readline()
        family = psutil.Process(process.pid).children(recursive=True)
        assert line, (folder / "stderr").read_text()
        yield Running(process, folder, port, json.loads(line), family)
    finally:
        process.kill()
        process.wait()
        gone(family, 15)
        for member in family:
            if member.is_running():
                member.kill()
        process.stdout.close()
        monkey.undo()


def test_it_prints_one_object_without_secrets(running: Running) -> None:
    file = running.folder / ".assay/credentials.json"
    url = f"http://127.0.0.1:{running.port}"
    assert running.printed == {"url": url, "user": "assay", "credentials_file": str(file)}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((running.folder / ".assay/auth.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("route", ["/", "/api/2.0/mlflow/experiments/search?max_results=5", "/graphql", "/metrics"])
def test_nothing_is_shown_without_the_password(running: Running, route: str) -> None:
    assert running.get(route, signed=False)[0] == 401
    assert running.get(route, password="wrong" * 4)[0] == 401


def test_the_run_and_the_pages_are_shown_with_it(running: Running) -> None:
    status, body = running.get("/api/2.0/mlflow/experiments/get-by-name?experiment_name=digits")
    assert status == 200
    assert json.loads(body)["experiment"]["name"] == "digits"
    run_id = next((running.folder / ".assay/artifacts").rglob("report.txt")).parents[1].name
    assert running.get(f"/get-artifact?path=report.txt&run_uuid={run_id}") == (200, b"half of it is right")
    assert running.get(f"/get-artifact?path=report.txt&run_uuid={run_id}", signed=False)[0] == 401
    status, page = running.get("/")
    assert status == 200
    assert b"<html" in page


def test_it_listens_on_loopback_only_and_writes_into_the_state_folder(running: Running) -> None:
    listening = {
        connection.laddr
        for member in running.family
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", running.port)}
    assert sorted(path.name for path in running.folder.iterdir()) == [".assay", "params.yaml", "stderr"]
    assert not (running.folder / ".assay/basic_auth.db").exists()


def test_secrets_are_on_no_command_line(running: Running) -> None:
    kept = json.loads((running.folder / ".assay/credentials.json").read_text())
    lines = " ".join(" ".join(member.cmdline()) for member in running.family)
    assert "mlflow" in lines
    assert kept["password"] not in lines
    assert kept["secret_key"] not in lines


def test_a_taken_port_is_refused_in_one_line(running: Running, project: Path) -> None:
    (project / ".assay").mkdir()
    (project / ".assay/mlflow.db").touch()
    code, out, said = finish(project, running.port)
    assert (code, out) == (2, "")
    assert len(said.splitlines()) == 1
    owner = next(member for member in running.family if member.net_connections("inet"))
    assert f"port {running.port} is taken by {owner.name()} (pid {owner.pid})" in said
    assert "use --port" in said
    assert not (project / ".assay/credentials.json").exists()


def test_ctrl_c_ends_all_of_it_and_no_secret_was_written(running: Running) -> None:
    """The last test but one on the shared server: it ends it."""
    assert len(running.family) >= 2
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=20) == 0
    assert gone(running.family, 1)
    assert running.process.stdout is not None
    said = running.process.stdout.read() + (running.folder / "stderr").read_text() + json.dumps(running.printed)
    log = (running.folder / ".assay/logs/mlflow.log").read_text()
    assert "Uvicorn running" in log
    assert "has stopped" in said
    kept = json.loads((running.folder / ".assay/credentials.json").read_text())
    for secret in (kept["password"], kept["secret_key"]):
        assert secret not in said
        assert secret not in log
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", running.port))


@pytest.mark.thorough
def test_lost_credentials_are_explained(running: Running) -> None:
    """MLflow keeps the first password: a new file does not open the old database."""
    (running.folder / ".assay/credentials.json").unlink()
    code, out, said = finish(running.folder, free_port())
    assert (code, out) == (2, "")
    assert "its password is not the one that" in said
    assert "remove auth.db" in said


def test_without_runs_there_is_nothing_to_show(project: Path) -> None:
    code, out, said = finish(project, free_port())
    assert (code, out) == (2, "")
    assert "mlflow.db: no runs yet: run `make demo`" in said
    assert not (project / ".assay").exists()


def test_a_tracking_server_of_its_own_is_shown_not_started(project: Path) -> None:
    code, out, _ = finish(project, free_port(), ASSAY_TRACKING_URI="https://me:hidden@mlflow.example:8443/x")
    assert code == 0
    assert json.loads(out) == {"url": "https://mlflow.example:8443/x", "user": None, "credentials_file": None}


def test_credentials_are_kept_and_refused_when_others_may_read_them(tmp_path: Path) -> None:
    file = tmp_path / "state" / "credentials.json"
    made = load_credentials(file)
    assert load_credentials(file) == made
    assert len(made.password) >= 24
    assert made.password not in repr(made)
    assert made.secret_key not in repr(made)
    file.chmod(0o640)
    with pytest.raises(InputError, match=f"chmod 600 {file}"):
        load_credentials(file)
    file.chmod(0o600)
    file.write_text("{}")
    with pytest.raises(InputError, match="damaged .*: repair it, or remove it and auth.db"):
        load_credentials(file)
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="plain file"):
        load_credentials(file)


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sqlite_file("sqlite:////a b/c.db?timeout=3") == Path("/a b/c.db")
    assert sqlite_file("sqlite:///c.db") == tmp_path / "c.db"
    assert sqlite_file("postgresql://h/c.db") is None
    assert hide_login("https://u:p@h:1/x?y=1") == "https://h:1/x"


def service(folder: Path, script: str) -> Service:
    log = folder / "logs" / "fake.log"
    env = dict(os.environ)
    return Service("fake", ["sh", "-c", script], env, folder, log, "", lambda _: False)


def test_a_server_that_fails_or_stays_silent_shows_the_end_of_its_log(tmp_path: Path) -> None:
    lines: list[str] = []
    with Server(service(tmp_path, "echo no luck; exit 3")) as server, pytest.raises(WorkError) as failed:
        server.wait_healthy(Stop(), lines.append)
    assert "ended by itself (exit code 3)" in str(failed.value)
    assert str(failed.value).endswith("no luck")
    with Server(service(tmp_path, "echo busy; sleep 60")) as server, pytest.raises(WorkError) as silent:
        server.wait_healthy(Stop(), lines.append, seconds=0.5)
    assert "did not answer within" in str(silent.value)
    assert str(silent.value).endswith("busy")
    assert (tmp_path / "logs/fake.previous.log").read_text() == "no luck\n"


def test_a_stubborn_family_is_ended_by_force(tmp_path: Path) -> None:
    script = "trap '' TERM; setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" & while :; do sleep 1; done"
    server = Server(service(tmp_path, script))
    leader = psutil.Process(server.process.pid)
    limit = time.monotonic() + 5
    while len(leader.children(recursive=True)) < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.3)  # the traps are set
    family = [leader, *leader.children(recursive=True)]
    server.end(seconds=0.5)
    assert gone(family, 3)  # a `sleep 1` may have been begun in between, and ends by itself


def test_a_server_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from assay.services.server import Server, Service\n"
        "folder = Path(sys.argv[1])\n"
        "s = Server(Service('fake', ['sleep', '60'], {'PATH': '/usr/bin:/bin'}, folder, folder / 'log', '', bool))\n"
        "print(s.process.pid, flush=True); time.sleep(60)"
    )
    source = str(Path(__file__).parents[2] / "platform")
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), source], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    if sys.platform == "linux":
        assert gone([child], 3)
    else:
        child.kill()
