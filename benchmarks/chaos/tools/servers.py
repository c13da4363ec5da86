"""Servers that can be taken away and brought back: MLflow's on the project's own store, and object storage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.s3 import BUCKET, running_s3
from tests.support.servers import free_port, stop
from tests.support.servers import start as start_server


@dataclass
class Server:
    """`variables` lead commands to it."""

    variables: dict[str, str]
    process: subprocess.Popen[bytes]
    restart: Callable[[], subprocess.Popen[bytes]] | None = None

    def cut(self, hanging: bool) -> None:
        """Let it answer nothing, or end it, so that connections are refused."""
        if hanging:
            os.killpg(self.process.pid, signal.SIGSTOP)
        else:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def back(self, hanging: bool) -> None:
        if hanging:
            os.killpg(self.process.pid, signal.SIGCONT)
        else:
            assert self.restart is not None
            self.process = self.restart()


@contextmanager
def tracking_server(project: Path) -> Iterator[Server]:
    """MLflow's server on the project's store, with the artifacts where the project has them."""
    port, state = free_port(), project / ".assay"
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{state / 'mlflow.db'}", "--no-serve-artifacts"]
    command += ["--default-artifact-root", str(state / "artifacts")]

    def answers() -> bool:
        from assay.http import status_of

        return status_of(f"{url}/health") == 200

    def begin() -> subprocess.Popen[bytes]:
        return start_server(command, project.parent / "mlflow.log", answers, os.environ)

    server = Server({"ASSAY_TRACKING_URI": url, "ASSAY_ARTIFACT_URI": str(state / "artifacts")}, begin(), begin)
    try:
        yield server
    finally:
        stop(server.process)


@contextmanager
def object_storage(_project: Path) -> Iterator[Server]:
    """S3 for runs and artifacts. What it holds is in its memory, so it can hang but not be started again."""
    with running_s3() as storage:
        places = {"ASSAY_STORAGE": f"s3://{BUCKET}/runs", "ASSAY_ARTIFACT_URI": f"s3://{BUCKET}/artifacts"}
        yield Server({**storage.environment, **places}, storage._server)
