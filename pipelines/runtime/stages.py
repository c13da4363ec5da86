"""Stages as Prefect tasks: a flow runs what `dvc repro` by hand runs, and skips what is unchanged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from assay.cli.failure import FILE
from assay.config.params import load_params
from assay.scratch import scratch_folder
from pipelines.runtime.errors import StageFailed
from pipelines.runtime.project import require_stages
from pipelines.runtime.workspace import forget, stop_group, watch

STAGE_SECONDS = 24 * 3600.0
"""The most that a stage may take: longer than the longest training of a night."""
STAGES = ("train", "evaluate", "register")
"""The stages of an experiment in `dvc.yaml`, after that of its data."""
ASSAY = [sys.executable, "-m", "assay"]
DVC = [sys.executable, "-m", "dvc", "--wait-for-lock"]


@dataclass(frozen=True)
class CommandResult:
    """How a command ended. `failure` is what `assay` reported of it; None on success, or if `assay` never ran."""

    code: int
    output: str
    failure: dict[str, Any] | None

    def require_success(self, what: str) -> None:
        if self.code == 0:
            return
        if self.failure is None:
            if self.code < 0:
                raise StageFailed(f"{what} was killed by signal {-self.code}", retry=True)
            raise StageFailed(f"{what} ended with exit code {self.code}; its message is in the log")
        raise StageFailed(f"{what}: {self.failure['message']}", self.failure["retry"], self.failure["code"] or 1)


def can_help(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again can help: not after wrong input, and not after work that failed on its own."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StageFailed) and error.retry


RETRIED: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=10),
    "retry_condition_fn": can_help,
    "cache_policy": None,
    "persist_result": False,
}
"""The options of a task that runs a command: it is tried again after 10, 20 and 40 seconds, if that can help."""


def stages_of(root: Path, experiment: str) -> list[str]:
    """The stages of an experiment in order, its data's first."""
    dataset = load_params(root / "params.yaml").experiment(experiment).data
    return [f"data@{dataset}", *(f"{stage}@{experiment}" for stage in STAGES)]


@task(task_run_name="{stage}", **RETRIED)
def reproduce(root: str, stage: str) -> bool:
    """Bring one stage up to date; True if it ran, False if it was unchanged."""
    require_stages(Path(root))
    lock = Path(root) / "dvc.lock"
    before = lock.read_bytes() if lock.exists() else b""
    get_run_logger().info("%s", stage)
    run([*DVC, "repro", "--quiet", "--single-item", stage], root).require_success(stage)
    ran = not lock.exists() or lock.read_bytes() != before
    get_run_logger().info("%s %s", stage, "ran" if ran else "is unchanged")
    return ran


def run(command: list[str], root: str, seconds: float = STAGE_SECONDS, keep_output: bool = False) -> CommandResult:
    """Run a command to its end; if this process is stopped first, or time is up, stop the command, which saves first.

    Raises:
        StageFailed: time was up.
    """
    with scratch_folder(Path(root)) as folder:
        failure, output = folder / "error.json", folder / "output"
        bin_folder = str(Path(sys.executable).parent)
        path = f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}"
        with output.open("wb") as file:
            child = subprocess.Popen(
                command, cwd=root, env={**os.environ, "PATH": path, FILE: str(failure)},
                stdin=subprocess.DEVNULL, stdout=file if keep_output else None, start_new_session=True,
            )  # fmt: skip
            code = _wait(child, seconds)
        why = json.loads(failure.read_text()) if failure.exists() else None
        return CommandResult(code, output.read_text(errors="replace"), why)


def _wait(child: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait until no process of a command's group is left; returns its exit code."""
    watch(child.pid)
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        hours = f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"
        raise StageFailed(f"stopped after {hours}, the most that it may take; the same command continues it") from None
    finally:
        stop_group(child.pid)
        child.wait()
        forget(child.pid)
