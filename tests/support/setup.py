"""A project whose services are up, its program, and what must be gone at the end."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.services.processes import of_setup
from assay.services.ray import ray_folder
from tests.conftest import BIN, REPOSITORY, Project

OURS = ("ASSAY_", "MLFLOW_", "PREFECT_", "RAY_")


@dataclass
class Setup:
    """A project whose services are up, and what the two programs said that started them at the same time."""

    project: Project
    printed: list[dict[str, Any]]
    said: str

    @property
    def state(self) -> Path:
        return self.project.root / ".assay"

    @property
    def secrets(self) -> list[str]:
        kept = json.loads((self.state / "credentials.json").read_text())
        return [kept["password"], kept["secret_key"], (self.state / "ray-token").read_text()]

    @property
    def token(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secrets[2]}"}


def free_block() -> int:
    """Four free ports in a row, below those that the system hands out."""
    for first in range(20000 + os.getpid() % 5000, 30000, 10):
        try:
            for port in range(first, first + 4):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError


def bare(folder: Path) -> Project:
    """A project with flows, and nothing else."""
    shutil.copytree(REPOSITORY / "pipelines", folder / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "params.yaml").write_text("datasets: {}\n")
    return Project(folder)


def start(project: Project, *arguments: str, **more: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in project.environment.items() if not name.startswith(OURS)}
    environment = {**kept, "ASSAY_PROJECT": str(project.root), **more}
    return subprocess.Popen(
        [str(BIN / "assay"), *arguments, "--json"],
        cwd=project.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assay(project: Project, *arguments: str, code: int = 0, **more: str) -> tuple[dict[str, Any], str]:
    with start(project, *arguments, **more) as process:
        out, said = process.communicate(timeout=200)
    assert process.returncode == code, said
    assert "Traceback" not in said
    return json.loads(out) if out.strip() else {}, said


def nothing_left(project: Project, first: int) -> None:
    assert of_setup(project.root) == []
    for port in range(first, first + 4):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    folder = ray_folder(project.root / ".assay")
    assert not [path for path in folder.rglob("*") if path.is_socket()]
    assert not (project.root / ".assay/services.json").exists()
