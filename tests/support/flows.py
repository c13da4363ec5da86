"""A Prefect server and a worker of a project, as `assay up` would start them, and ways to harm them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.servers import WAIT_SECONDS, free_port, wait_for

AUTH = "assay:a-password-of-tests"


@dataclass
class Site:
    """A project with services. `environment` is what its programs run with."""

    root: Path
    base: dict[str, str]
    port: int = field(default_factory=free_port)
    server: subprocess.Popen[bytes] | None = None
    worker: subprocess.Popen[bytes] | None = None

    @property
    def prefect_home(self) -> Path:
        return self.root / ".assay/prefect"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        prefect = {"PREFECT_API_URL": self.address, "PREFECT_API_AUTH_STRING": AUTH}
        others = {"PREFECT_HOME": str(self.prefect_home), "ASSAY_PROJECT": str(self.root), "DO_NOT_TRACK": "1"}
        return {**self.base, **others, **prefect, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

    def start(self, name: str, command: list[str], **more: str) -> subprocess.Popen[bytes]:
        """A program in a session of its own, its output in a file."""
        with (self.root / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.root, env={**self.environment, **more}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def start_server(self) -> None:
        command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        settings = {"PREFECT_SERVER_API_AUTH_STRING": AUTH, "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}
        self.prefect_home.mkdir(parents=True, exist_ok=True)
        self.server = self.start("server", [str(Path(sys.executable).parent / command[0]), *command[1:]], **settings)
        wait_for("the server", self._healthy)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def start_worker(self, **more: str) -> None:
        self.worker = self.start("worker", [sys.executable, "-m", "pipelines", "worker"], **more)
        before = self.log("worker").count("started!")
        wait_for("the worker", lambda: self.log("worker").count("started!") > before)

    def end(self, process: subprocess.Popen[bytes] | None, number: int = signal.SIGTERM) -> int:
        """Signal a program (a killed one with all of its session) and wait for its end."""
        assert process is not None
        with suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
        return process.wait(60)

    def log(self, name: str) -> str:
        file = self.root / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the server's API. It answers 503 while SQLite is busy; Prefect's client tries again, too."""
        import base64

        secret = base64.b64encode(AUTH.encode()).decode()
        headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.address}{path}", data, headers, method=method)
        for _ in range(5):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(2)
        raise AssertionError(f"{method} {path}: the server stays busy")

    def runs(self, **chosen: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("POST", "/flow_runs/filter", {"flow_runs": chosen, "limit": 200})
        return found

    def run_of(self, flow_run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/flow_runs/{flow_run}")
        return found

    def wait_state(self, flow_run: str, *states: str, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """The run, once its state has one of these types or names."""

        def there() -> dict[str, Any] | None:
            run = self.run_of(flow_run)
            return run if {run["state_type"], run["state_name"]} & set(states) else None

        found: dict[str, Any] = wait_for(f"{flow_run} {states}", there, seconds)
        return found

    def set_state(self, flow_run: str, state: str, name: str | None = None) -> None:
        body = {"state": {"type": state, **({"name": name} if name else {})}, "force": False}
        self.api("POST", f"/flow_runs/{flow_run}/set_state", body)

    def flow_log(self, flow_run: str) -> str:
        file = self.root / ".assay" / "logs" / "flows" / f"{flow_run}.log"
        return file.read_text(errors="replace") if file.exists() else ""


@contextmanager
def site(root: Path, base: dict[str, str], worker: bool = True) -> Iterator[Site]:
    """Services for the block; nothing is left behind."""
    here = Site(root, base)
    try:
        here.start_server()
        if worker:
            here.start_worker()
        yield here
    finally:
        for process, number in ((here.worker, signal.SIGTERM), (here.server, signal.SIGKILL)):
            if process is not None and process.poll() is None:
                here.end(process, number)
