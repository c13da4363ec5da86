"""`assay up`, `assay down`: the real servers, seen from outside, behind their doors, and gone."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from assay.http import ask, basic_login
from assay.services.net import MARK
from assay.services.processes import find_workloads, of_setup
from assay.services.ray import ray_folder
from assay.services.setup import supervisor_of
from tests.conftest import REPOSITORY, Project
from tests.support.servers import wait_for
from tests.support.setup import Setup, assay, bare, free_block, nothing_left, start

OPEN = {
    "MLflow": {
        "/health": "says OK",
        "/version": "the version of MLflow",
        "/api/3.0/mlflow/server-info": "that runs are in a database, and what this version can do",
        "/ajax-api/3.0/mlflow/server-info": "the same",
        "/static-files/<path:path>": "code and pictures of the pages",
    },
    "Prefect": {
        "/api/health": "says true",
        "/api/ready": "says OK",
    },
    "Ray": {
        "/": "the empty page, which asks for the token",
        "/favicon.ico": "a picture",
        "/static": "code and pictures of the page",
        "/api/authentication_mode": "that a token is needed",
        "/api/healthz": "says success",
        "/api/gcs_healthz": "says success",
        "/api/local_raylet_healthz": "says success",
    },
}
"""What answers without credentials, and why that is no loss."""
STATIC = ("/", "/v2/", "/docs", "/redoc", "/openapi.json", "/ui-settings")
"""Prefect's pages without a word of data."""


FLOWS = re.compile("prefect|-m pipelines worker")
"""Processes of Prefect's server, and of the worker."""


@pytest.fixture(scope="module")
def setup(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("setup") / "p"
    shutil.copytree(template.root, folder, symlinks=True, ignore=shutil.ignore_patterns(".assay"))
    project = Project(folder)
    first = free_block()
    try:
        with start(project, "up", "--ports", str(first)) as one, start(project, "up", "--ports", str(first)) as other:
            ends = [process.communicate(timeout=200) for process in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0), ends
        yield Setup(project, [json.loads(out) for out, _ in ends], "".join(said for _, said in ends))
    finally:
        assay(project, "down")


def listening(setup: Setup) -> dict[tuple[str, int], str]:
    """Every listening port of every process of the setup, and the name of the process."""
    found = {}
    for process in of_setup(setup.project.root):
        for opened in process.net_connections("inet"):
            if opened.status == psutil.CONN_LISTEN:
                found[opened.laddr.ip.removeprefix("::ffff:"), opened.laddr.port] = " ".join(process.cmdline())
    return found


def test_two_at_a_time_start_one_setup(setup: Setup) -> None:
    assert sorted(printed["started"] for printed in setup.printed) == [False, True]
    assert "waiting for another `assay up` or `assay down`" in setup.said
    first, second = ({k: v for k, v in printed.items() if k != "started"} for printed in setup.printed)
    assert first == second
    assert first["user"] == "assay"


def test_no_secret_is_told_or_written(setup: Setup) -> None:
    written = [path for path in [setup.state / "services.json", *(setup.state / "logs").iterdir()] if path.is_file()]
    written += [path for path in ray_folder(setup.state).rglob("logs/*") if path.is_file()]
    assert len(written) > 8
    lines = [" ".join(process.cmdline()) for process in of_setup(setup.project.root)]
    places = [json.dumps(setup.printed), setup.said, *lines, *(path.read_text(errors="replace") for path in written)]
    for secret in setup.secrets:
        assert not [place for place in places if secret in place]
    for name in ("credentials.json", "ray-token", "auth.db", "logs/prefect.log"):
        assert stat.S_IMODE((setup.state / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(ray_folder(setup.state).parent.stat().st_mode) == 0o700


def test_all_ports_are_on_loopback(setup: Setup) -> None:
    found = listening(setup)
    assert len(found) >= 8
    assert {address for address, _ in found} <= {"127.0.0.1", "::1"}


def call(method: str, url: str) -> tuple[int, bytes] | None:
    """What a request without credentials gets; None where nothing speaks HTTP."""
    import http.client

    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request(method, f"/{path}")
        reply = connection.getresponse()
        return reply.status, reply.read(2000)
    except (http.client.HTTPException, OSError):
        return None
    finally:
        connection.close()


def ports_of(setup: Setup, part: str) -> list[int]:
    """MLflow's and Prefect's own; for Ray every one that any of its processes listens on."""
    own = {name: int(setup.printed[0][name].rpartition(":")[2]) for name in ("mlflow", "prefect")}
    if part != "Ray":
        return [own[part.lower()]]
    return [port for (_, port), line in listening(setup).items() if port not in own.values() and not FLOWS.search(line)]


@pytest.mark.thorough
def test_every_route_is_closed(setup: Setup) -> None:
    source = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests/support/routes.py")], capture_output=True, text=True, check=True
    )
    routes: dict[str, list[tuple[str, str]]] = json.loads(source.stdout)
    called, told = 0, []
    for part, pairs in routes.items():
        wanted = {(method, path) for method, path in map(tuple, pairs)} | {("GET", path) for _, path in pairs}
        for port in ports_of(setup, part):
            if call("GET", f"http://127.0.0.1:{port}/") is None:
                continue  # no HTTP: looked at below
            for method, path in sorted(wanted):
                reply = call(method, f"http://127.0.0.1:{port}{re.sub(r'<[^>]*>|{[^}]*}', 'x', path)}")
                called += 1
                if path not in OPEN[part] and (reply is None or reply[0] not in (401, 403, 405)):
                    told.append((part, port, method, path, reply))
    assert called > 1000
    assert not told, "\n".join(map(str, told))


def test_what_is_open_holds_no_data(setup: Setup) -> None:
    """Prefect's pages and the description of its API are the same for every server of this version."""
    prefect = setup.printed[0]["prefect"]
    for path in STATIC:
        reply = call("GET", f"{prefect}{path}")
        assert reply is not None
        assert reply[0] == 200
        assert setup.project.root.name.encode() + b"/" not in reply[1]
    for part in ("mlflow", "prefect", "ray"):
        for path in OPEN[{"mlflow": "MLflow", "prefect": "Prefect", "ray": "Ray"}[part]]:
            reply = call("GET", f"{setup.printed[0][part]}{path}")
            assert reply is not None
            assert reply[0] in (200, 403, 404) or reply[0] == 401, (path, reply)


@pytest.mark.parametrize(
    "path", ["/api/events/in", "/api/events/out", "/api/logs/out", "/api/task_runs/subscriptions/scheduled"]
)
def test_prefects_websockets_are_closed(setup: Setup, path: str) -> None:
    url = setup.printed[0]["prefect"].replace("http", "ws") + path
    for hello in (
        {"type": "auth", "token": None},
        {"type": "auth", "token": "assay:wrong"},
        {"type": "subscribe"},
        None,
    ):
        assert refused(url, hello), hello


def refused(url: str, hello: dict[str, Any] | None) -> bool:
    """Whether a websocket is closed before it has told anything."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake
    from websockets.sync.client import connect

    try:
        with connect(url, subprotocols=["prefect"] if hello else None) as opened:  # type: ignore[list-item]
            if hello:
                opened.send(json.dumps(hello))
            opened.recv(timeout=10)
    except (ConnectionClosed, InvalidHandshake):
        return True
    return False


def test_rays_other_ports_ask_for_the_token(setup: Setup) -> None:
    import grpc

    spoken = 0
    for port in ports_of(setup, "Ray"):
        if call("GET", f"http://127.0.0.1:{port}/") is not None:
            continue
        spoken += 1
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            codes = set()
            for service in (
                *(
                    "NodeInfoGcsService/GetAllNodeInfo",
                    "JobInfoGcsService/GetAllJobInfo",
                    "InternalKVGcsService/InternalKVGet",
                ),
                *("NodeManagerService/GetNodeStats", "ObjectManagerService/Pull", "ReporterService/GetTraceback"),
                *("CoreWorkerService/GetCoreWorkerStats", "ReporterService/HealthCheck"),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    channel.unary_unary(f"/ray.rpc.{service}")(b"", timeout=10)
                codes.add(refused.value.code())
        assert grpc.StatusCode.UNAUTHENTICATED in codes, port
        assert codes <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}, (port, codes)
    assert spoken >= 3


def test_the_workers_own_port_hangs_up_on_strangers(setup: Setup) -> None:
    """Its flow runs call it, each with a token that is good for once."""
    (port,) = (port for (_, port), line in listening(setup).items() if "-m pipelines worker" in line)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(b"0" * 32 + b"\n")
        assert line.recv(100) == b""


def test_again_it_changes_nothing_and_other_ports_are_refused(setup: Setup) -> None:
    before = {process.pid for process in of_setup(setup.project.root)}
    printed, _ = assay(setup.project, "up")
    assert printed == {**setup.printed[0], "started": False}
    assert before <= {process.pid for process in of_setup(setup.project.root)}
    _, said = assay(setup.project, "up", "--ports", "0", code=2)
    assert "the services run elsewhere; run `assay down` first" in said
    shown, _ = assay(setup.project, "ui")
    assert {name: shown[name] for name in printed if name != "started"} == {
        name: value for name, value in printed.items() if name != "started"
    }
    assert shown["url"] == printed["mlflow"]


def test_commands_use_them(setup: Setup) -> None:
    """Two workers train on the shared Ray, and the run is in MLflow's server, with its artifacts in the project."""
    short = [word for value in ("train.epochs=2", "train.workers=2") for word in ("--set", value)]
    record, said = assay(setup.project, "train", "digits", *short)
    assert record["status"] == "FINISHED"
    assert "starting Ray on this machine" not in said
    (run,) = assay(setup.project, "runs")[0]["runs"]
    assert run["run_id"] == record["run_id"]
    kept = json.loads((setup.state / "credentials.json").read_text())
    route = f"{setup.printed[0]['mlflow']}/api/2.0/mlflow/runs/get?run_id={record['run_id']}"
    answer = ask("GET", route, basic_login(kept["user"], kept["password"]))
    assert (answer.status, answer.json()["run"]["info"]["status"]) == (200, "FINISHED")
    assert list((setup.state / "artifacts").rglob("record.json"))
    with start(setup.project, "doctor") as process:  # whatever else it finds
        checks = {check["name"]: check for check in json.loads(process.communicate(timeout=100)[0])["checks"]}
    assert checks["tracking store"]["detail"] == setup.printed[0]["mlflow"]
    assert checks["services"]["detail"].startswith(f"up: MLflow {setup.printed[0]['mlflow']}, Prefect http")


def test_another_project_is_told_who_has_the_ports(setup: Setup, tmp_path: Path) -> None:
    first = setup.printed[0]["mlflow"].rpartition(":")[2]
    _, said = assay(bare(tmp_path / "p"), "up", "--ports", first, code=2)
    assert len(said.splitlines()) == 1
    assert f"port {first} (MLflow) is taken by " in said
    assert f", of {setup.project.root})" in said
    assert "use `assay up --ports " in said


def submit(setup: Setup, *command: str) -> str:
    """Hand a job to Ray's job server."""
    body = {"entrypoint": " ".join(command)}
    answer = ask("POST", f"{setup.printed[0]['ray']}/api/jobs/", setup.token, body=body, seconds=60)
    assert answer.status == 200, answer.text
    return str(answer.json()["submission_id"])


JOB = """
import os, pathlib, signal, sys, time
import ray
ray.init(log_to_driver=False)
answer = ray.get(ray.remote(lambda: os.environ["ASSAY_TRACKING_URI"]).remote())
def save(*_):
    time.sleep(1.5)
    pathlib.Path(sys.argv[1], "saved").write_text(answer)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1], "works").touch()
time.sleep(300)
"""


def test_what_was_killed_is_started_again(setup: Setup) -> None:
    """The last test but one: MLflow's server, killed with all of it."""
    mine = of_setup(setup.project.root)
    victims = [process for process in mine if "mlflow" in " ".join(process.cmdline())]
    for victim in victims:
        victim.kill()
    wait_for("its state", lambda: "dead" in (setup.state / "services.json").read_text(), 10)
    printed, said = assay(setup.project, "up")
    assert printed == {**setup.printed[0], "started": False}
    assert "MLflow: healthy" in said
    assert "MLflow: ended by itself" in (setup.state / "logs/services.log").read_text()


def test_down_lets_a_job_save_and_leaves_nothing(setup: Setup, tmp_path: Path) -> None:
    """The last test on the shared setup: it ends it. The job traps SIGTERM, as a training does."""
    (tmp_path / "job.py").write_text(JOB)
    submit(setup, sys.executable, str(tmp_path / "job.py"), str(tmp_path))
    wait_for("the work", (tmp_path / "works").exists, 60)
    assert [one.name.split()[0] for one in find_workloads(setup.project.root)] == ["job"]
    printed, said = assay(setup.project, "down")
    assert printed["was_up"]
    assert printed["ended"] > 10
    assert "waiting for job (process" in said
    assert (tmp_path / "saved").read_text() == setup.printed[0]["mlflow"]
    nothing_left(setup.project, int(setup.printed[0]["mlflow"].rpartition(":")[2]))
    assert assay(setup.project, "down")[0] == {"was_up": False, "ended": 0}


@pytest.mark.thorough
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    project, first = bare(tmp_path / "p"), free_block()
    with start(project, "up", "--ports", str(first)) as process:
        wait_for("the services", lambda: len(of_setup(project.root)) > 3, 60)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "everything that was started has been shut down" in said
    nothing_left(project, first)


@pytest.mark.thorough
def test_a_service_that_cannot_start_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    project, first = bare(tmp_path / "p"), free_block()
    where = "sqlite+aiosqlite:////nowhere/prefect.db"
    _, said = assay(project, "up", "--ports", str(first), code=1, PREFECT_API_DATABASE_CONNECTION_URL=where)
    assert "Prefect ended by itself (exit code" in said
    assert "unable to open database file" in said
    nothing_left(project, first)


@pytest.mark.thorough
def test_a_killed_supervisor_and_a_stale_file_are_cleaned_up(tmp_path: Path) -> None:
    """A supervisor killed while it starts things: what it leaves ends by itself or by `down`."""
    project, first = bare(tmp_path / "p"), free_block()
    with start(project, "up", "--ports", str(first)) as process:
        wait_for("the services", lambda: len(of_setup(project.root)) > 3, 60)
        supervisor = supervisor_of(project.root)
        assert supervisor is not None
        orphan = subprocess.Popen(["sleep", "300"], env={MARK: str(project.root)}, start_new_session=True)
        supervisor.kill()
        _, said = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "the supervisor ended" in said
    assert orphan.wait(timeout=10) != 0
    nothing_left(project, first)


def test_it_refuses_to_serve_another_server(tmp_path: Path) -> None:
    _, said = assay(bare(tmp_path / "p"), "up", code=2, ASSAY_TRACKING_URI="https://me:hidden@runs.example")
    assert "ASSAY_TRACKING_URI names a server, https://runs.example" in said
