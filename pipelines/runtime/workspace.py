"""One flow at a time works in a checkout, and what it has started ends with it.

The lock is an open file of the flow and of its watchdog: the kernel frees it when both are gone. So even after
a `kill -9` no other flow starts before the stages of the dead one have saved and stopped.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from assay.files import load_json
from assay.log import Log
from assay.signals import handled_by, wait_or_kill
from assay.state import WORKSPACE_LOCK, state_folder

POLL_SECONDS = 0.3
WATCHDOG = Path(__file__).with_name("watchdog.py")

_watchdog: subprocess.Popen[str] | None = None
_groups: set[int] = set()


@contextmanager
def workspace(root: Path, who: str, log: Log) -> Iterator[None]:
    """Hold the checkout for the block; reentrant within the process.

    Args:
        who: the name of this flow, for others that wait.
    """
    global _watchdog
    if _watchdog is not None:
        yield
        return
    state_folder(root).mkdir(exist_ok=True)
    descriptor = os.open(state_folder(root) / WORKSPACE_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait(descriptor, log)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "flow": who}).encode(), 0)
        _watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WATCHDOG)],
            stdin=subprocess.PIPE, text=True, pass_fds=(descriptor,), start_new_session=True,
        )  # fmt: skip
        try:
            yield
        finally:
            _let_go(_watchdog)
            _watchdog = None
    finally:
        os.close(descriptor)


def _wait(descriptor: int, log: Log) -> None:
    logged = None
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            if holder != logged:
                log(f"waiting for the workspace: {holder} works in it")
                logged = holder
            time.sleep(POLL_SECONDS)
        else:
            if logged is not None:
                log("the workspace is free")
            return


def _holder(descriptor: int) -> str:
    try:
        holder = load_json(os.pread(descriptor, 4096, 0))
        return f"{holder['flow']} (process {holder['pid']})"
    except (ValueError, KeyError, TypeError):  # it is writing just now
        return "another flow"


def _let_go(watchdog: subprocess.Popen[str]) -> None:
    """Stop what still runs: the signal that ends the flow does not reach a task of another thread."""
    for group in list(_groups):
        stop_group(group)
    assert watchdog.stdin is not None
    with suppress(BrokenPipeError):
        watchdog.stdin.close()
    wait_or_kill(watchdog, 40)  # longer than it gives a group to end


def watch(group: int) -> None:
    """Have a group of processes ended when this process dies."""
    _groups.add(group)
    _send(f"+{group}\n")


def forget(group: int) -> None:
    _groups.discard(group)
    _send(f"-{group}\n")


def _send(line: str) -> None:
    if _watchdog is not None and _watchdog.stdin is not None:
        with suppress(BrokenPipeError):  # somebody killed it
            _watchdog.stdin.write(line)
            _watchdog.stdin.flush()


def stop_group(group: int) -> None:
    """Send SIGINT to a stage and all that it started, so that they save and end; SIGKILL to those that do not."""
    from pipelines.runtime.watchdog import end_group

    with handled_by(signal.SIG_IGN):  # a second signal must not cut short the saving that the first one requested
        end_group(group, _alive)


def _alive(group: int) -> bool:
    """Whether the group still has a process that lives: zombies wait for a parent that may never collect them."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
