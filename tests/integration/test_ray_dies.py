"""Whatever of Ray is killed, the training goes on, on a clean Ray, and ends with the same bits; nothing of it stays."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.support.servers import wait_for

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]
EPOCHS = 60


@contextmanager
def training(root: Path) -> Iterator[subprocess.Popen[str]]:
    root.mkdir()
    (root / "params.yaml").touch()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "platform"), str(REPOSITORY)))}
    command = [sys.executable, "-m", "tests.support.launching", str(root), str(EPOCHS)]
    with (
        (root / "log.txt").open("w") as log,
        subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as child,
    ):
        try:
            yield child
        finally:
            child.kill()


def outcome(root: Path, child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    written = child.stdout.read()
    assert child.wait(300) == 0, told(root)
    found: dict[str, Any] = json.loads(written)
    return found


def told(root: Path) -> str:
    return (root / "log.txt").read_text()


def recorded(root: Path) -> int:
    spool = root / ".assay/runs/r/spool.jsonl"
    return spool.stat().st_size if spool.exists() else 0


def kill(child: subprocess.Popen[str], *names: str) -> int:
    """Kill the processes of the child's Ray whose names begin so; how many there were."""
    killed = 0
    for process in psutil.Process(child.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith(names):
                process.kill()
                killed += 1
    return killed


def test_a_worker_the_servers_and_all_of_ray_are_killed_in_turn(tmp_path: Path) -> None:
    root = tmp_path / "killed"
    with training(root) as child:
        for deaths, names in enumerate(
            (("raylet",), ("gcs_server",), ("ray::RayT",), ("raylet", "gcs_server", "ray::"))
        ):
            before = recorded(root)
            wait_for("progress", lambda before=before: recorded(root) > before or child.poll() is not None, 200)  # type: ignore[misc]
            assert child.poll() is None, told(root)
            assert kill(child, *names) > 0
            wait_for("the next attempt", lambda deaths=deaths: told(root).count("; continuing from") > deaths, 60)  # type: ignore[misc]
        killed = outcome(root, child)
    assert killed["resumed_from"] is not None
    assert not any(word in told(root) for word in ("Traceback", "(raylet)", "Termination is unexpected"))
    assert not list((root / ".assay/ray").glob("session_2*"))
    with training(tmp_path / "whole") as child:
        assert outcome(tmp_path / "whole", child)["weights_sha256"] == killed["weights_sha256"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_worker_that_dies_while_ray_starts_and_a_stop_then(tmp_path: Path, number: signal.Signals) -> None:
    root = tmp_path / "p"
    with training(root) as child:
        wait_for("a process of Ray", lambda: kill(child, "ray::") or child.poll() is not None, 200)
        wait_for("a start", lambda: recorded(root) > 0 or child.poll() is not None, 200)
        assert child.poll() is None, told(root)
        child.send_signal(number)
        assert not outcome(root, child)["finished"]
    assert f"{number.name}: saving a checkpoint and stopping" in told(root)
    assert "Traceback" not in told(root)
