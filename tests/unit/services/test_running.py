"""Whether services are up, and what commands then find in their environment."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.errors import InputError
from assay.services.credentials import load_credentials, ray_token
from assay.services.net import port_owner
from assay.services.ports import Ports, addresses, block, chosen_ports, keep_ports, require_all_free
from assay.services.ray import ray_folder
from assay.services.ray_head import forget_sessions
from assay.services.running import Running, enter, running, supervised
from assay.services.server import limit_log, new_log
from assay.settings import Settings
from assay.state import SERVICES_LOCK, SERVICES_STATUS
from assay.usecases import doctor
from assay.workers.ray_environment import SOCKET_NAME, SOCKET_PATH

FOUND = Running(**addresses(Ports()))
NAMES = (
    *("ASSAY_TRACKING_URI", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    *("ASSAY_RAY_ADDRESS", "ASSAY_CLUSTER", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"),
    *("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"),
)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # what `enter` sets, the end of the test undoes
    (tmp_path / "params.yaml").touch()
    (tmp_path / ".assay").mkdir()
    load_credentials(tmp_path / ".assay/credentials.json")
    return tmp_path / ".assay"


@pytest.fixture
def up(state: Path) -> Iterator[Path]:
    """As if a supervisor lived."""
    (state / SERVICES_STATUS).write_text(
        json.dumps({"ready": True, "addresses": addresses(Ports()), "services": {"Ray": "dead"}})
    )
    with (state / SERVICES_LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield state


def test_they_are_up_while_the_lock_is_held_and_all_have_answered(up: Path) -> None:
    assert running(up) == FOUND
    (up / SERVICES_STATUS).write_text(json.dumps({"ready": False, "addresses": {}}))
    assert running(up) is None
    assert supervised(up)
    (up / SERVICES_STATUS).unlink()
    assert running(up) is None


def test_a_stale_file_is_not_believed(state: Path) -> None:
    assert running(state) is None
    (state / SERVICES_STATUS).write_text(json.dumps({"ready": True, "addresses": addresses(Ports())}))
    (state / SERVICES_LOCK).touch()
    assert running(state) is None
    with (state / SERVICES_LOCK).open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not supervised(state)  # another one who asks is no supervisor


def test_a_dead_supervisor_frees_the_lock(state: Path) -> None:
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(state / SERVICES_LOCK)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert supervised(state)
        holder.kill()
        holder.wait()
    assert not supervised(state)


def test_commands_enter_them(up: Path) -> None:
    kept = json.loads((up / "credentials.json").read_text())
    enter(Settings(project=up.parent))
    assert Settings(project=up.parent).tracking == FOUND.mlflow
    assert Settings(project=up.parent).ray_address == FOUND.ray
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == kept["user"]
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == kept["password"]
    assert os.environ["PREFECT_API_URL"] == FOUND.prefect
    assert os.environ["PREFECT_API_AUTH_STRING"] == f"{kept['user']}:{kept['password']}"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(up / "ray-token")


def test_what_the_user_named_stays_and_gets_no_password_of_ours(up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://runs.example")
    monkeypatch.setenv("ASSAY_CLUSTER", "https://ray.example")
    monkeypatch.setenv("PREFECT_API_URL", "https://flows.example/api")
    enter(Settings(project=up.parent))
    assert [name for name in NAMES if os.environ[name]] == ["MLFLOW_TRACKING_URI", "ASSAY_CLUSTER", "PREFECT_API_URL"]


def test_nothing_is_set_without_services_or_without_their_password(state: Path, up: Path) -> None:
    (state / "credentials.json").unlink()
    enter(Settings(project=state.parent))
    (state / SERVICES_STATUS).unlink()
    enter(Settings(project=state.parent))
    assert not any(os.environ[name] for name in NAMES)


def test_asking_is_cheap() -> None:
    heavy = "{'psutil', 'pydantic', 'mlflow', 'prefect', 'ray', 'filelock'}"
    code = f"import sys, assay.services.running; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


def test_the_doctor_tells(up: Path) -> None:
    check = doctor.check_services(up, 5000)
    assert check.ok
    assert check.detail.startswith("Ray is dead; MLflow http://127.0.0.1:5000")
    assert check.fix == "assay up"
    (up / SERVICES_STATUS).unlink()
    assert doctor.check_services(up, 5000).detail == "being started or ended"


def test_ports_are_remembered_and_taken_ones_named(state: Path) -> None:
    import socket

    assert chosen_ports(state, None) == Ports()
    keep_ports(state, chosen_ports(state, 7000))
    assert chosen_ports(state, None) == Ports(7000, 7001, 7002, 7003)
    assert chosen_ports(state, 0) == Ports()
    (state / "ports.json").write_text("[]")
    with pytest.raises(InputError, match="ports.json: (must hold|damaged)"):
        chosen_ports(state, None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"port {port} \(Ray\) is taken by .* \(pid {os.getpid()}.*--ports \d+"
        ) as said:
            require_all_free(Ports(*_free(3), ray=port))
        room = int(str(said.value).rpartition("--ports ")[2].rstrip("`"))
        assert not any(map(port_owner, vars(block(room)).values()))


def _free(count: int) -> list[int]:
    import socket

    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def test_the_token_is_private_and_kept(tmp_path: Path) -> None:
    file = ray_token(tmp_path / "state/ray-token")
    token = file.read_text()
    assert len(token) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ray_token(file).read_text() == token
    file.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        ray_token(file)
    file.chmod(0o600)
    file.write_text("")
    with pytest.raises(InputError, match="is empty"):
        ray_token(file)


def test_rays_sockets_fit_wherever_the_project_lies(tmp_path: Path) -> None:
    for state in (Path("/p/.assay"), tmp_path / ("x" * 90) / ".assay"):
        assert len(str(ray_folder(state))) + SOCKET_NAME <= SOCKET_PATH
    assert ray_folder(Path("/a" * 50)) != ray_folder(Path("/b" * 50))


def test_logs_do_not_grow_without_limit(tmp_path: Path) -> None:
    log = tmp_path / "logs/a.log"
    handle = new_log(log)
    os.write(handle, b"old" * 100)
    limit_log(log, 1000)
    assert log.stat().st_size == 300
    limit_log(log, 100)
    os.write(handle, b"new")
    os.close(handle)
    assert log.read_bytes() == b"new"
    assert (tmp_path / "logs/a.previous.log").stat().st_size == 300
    os.close(new_log(log))
    assert (log.read_bytes(), (tmp_path / "logs/a.previous.log").read_bytes()) == (b"", b"new")
    for day in range(1, 6):
        (tmp_path / f"session_2026-01-0{day}").mkdir()
    forget_sessions(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("session_*")) == ["session_2026-01-04", "session_2026-01-05"]
