"""DVC stages as Prefect tasks: the flow runs what `dvc repro` by hand runs, and skips what is unchanged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from prefect import get_run_logger, task

LOCK_SECONDS = 600
STOP_SECONDS = 60
"""How long a stage that is asked to stop may take to save its checkpoint."""


class StageFailed(Exception):
    """A stage ended with an error, which it has told on standard error."""


@task(task_run_name="{stage}", cache_policy=None, persist_result=False)
def reproduce(root: str, stage: str) -> bool:
    """Bring one stage up to date; True if it ran, False if it was unchanged."""
    lock = Path(root) / "dvc.lock"
    before = lock.read_bytes() if lock.exists() else b""
    get_run_logger().info("%s", stage)
    command = [sys.executable, "-m", "dvc", "repro", "--quiet", "--single-item", stage]
    code = run(command, root)
    if code:
        raise StageFailed(f"{stage} ended with exit code {code}; its message is above")
    ran = not lock.exists() or lock.read_bytes() != before
    get_run_logger().info("%s %s", stage, "ran" if ran else "is unchanged")
    return ran


def run(command: list[str], root: str) -> int:
    """Run a command to its end; if this process is stopped first, the command is asked to save and stop."""
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    with subprocess.Popen(command, cwd=root, env=environment, start_new_session=True) as child:
        try:
            return child.wait()
        except BaseException:
            stop(child)
            raise


def stop(child: subprocess.Popen[bytes]) -> None:
    """SIGINT to the command and all that it started, which save and end; SIGKILL if they do not."""
    if child.poll() is not None:
        return
    os.killpg(child.pid, signal.SIGINT)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
