"""A Ray head for tests: on loopback, with a token, one slot and an environment of its own, as a cluster has."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from tests.conftest import BIN, REPOSITORY
from tests.support.servers import free_port

HOST = "127.0.0.1"
PORTS = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "ray-client-server-port")


@dataclass(frozen=True)
class Head:
    """A running head. `shared` is a folder that its nodes and the tests share."""

    address: str
    token: Path
    shared: Path

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def variables(self) -> dict[str, str]:
        """What the machine that submits must know."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token), **self.stores}

    @property
    def stores(self) -> dict[str, str]:
        uri = f"sqlite:///{self.shared}/mlflow.db"
        return {"ASSAY_TRACKING_URI": uri, "ASSAY_ARTIFACT_URI": (self.shared / "artifacts").as_uri()}


@contextmanager
def ray_head(variables: Mapping[str, str] = os.environ) -> Iterator[Head]:
    """Start a head in an environment, wait until it takes jobs, and end all of its processes afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="assay-head-"))  # short: Ray's socket names must fit
    head = Head(f"http://{HOST}:{free_port()}", folder / "token", folder / "shared")
    head.token.write_text(secrets.token_hex(32))
    head.shared.mkdir()
    ports = {**{name: free_port() for name in PORTS}, "dashboard-port": head.port}
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=1", f"--node-ip-address={HOST}"]
    command += [f"--dashboard-host={HOST}", f"--temp-dir={folder / 'ray'}", "--disable-usage-stats"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    installed = str(REPOSITORY / "platform")
    path = os.pathsep.join(filter(None, (variables.get("PYTHONPATH"), installed)))
    own = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path, "ASSAY_STORAGE": f"{head.shared}/runs"}
    own |= {"RAY_enable_metrics_collection": "0", "RAY_worker_niceness": "0"}
    own["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on Linux, too: all ports on loopback
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            command, env={**variables, **own, **head.variables}, cwd=folder, stdout=log, stderr=log
        )
    try:
        _wait(head, process, folder / "head.log")
        yield head
    finally:
        _end(process, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the dashboard and the agent that runs jobs answer."""
    headers = {"Authorization": f"Bearer {head.token.read_text()}"}
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        with suppress(requests.RequestException):
            if requests.get(f"{head.address}/api/jobs/", headers=headers, timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End the head and what it started, the jobs too."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    left = []
    for found in psutil.process_iter(["cmdline", "environ"]):
        words = [*(found.info["cmdline"] or []), (found.info["environ"] or {}).get("RAY_AUTH_TOKEN_PATH", "")]
        if found.pid != os.getpid() and any(str(folder) in word for word in words):
            left.append(found)
    for found in left:
        with suppress(psutil.NoSuchProcess):
            found.kill()
    psutil.wait_procs(left, timeout=10)
    process.poll()
