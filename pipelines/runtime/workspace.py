"""One flow at a time works in a checkout, and what it has started ends with it.

The lock is an open file of the flow and of its watchdog: the kernel frees it when both are gone. So also after a
`kill -9` no other flow begins before the stages of the dead one have saved and stopped.
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

from assay.log import Log
from assay.signals import handled_by
from assay.state import WORKSPACE_LOCK, state_folder

POLL_SECONDS = 0.3
WATCHDOG = Path(__file__).with_name("watchdog.py")

_watchdog: subprocess.Popen[str] | None = None
_groups: set[int] = set()


@contextmanager
def workspace(root: Path, who: str, log: Log) -> Iterator[None]:
    """Hold the checkout for the block; entered again by the same process, it is held already.

    Args:
        who: what others that wait are told of this flow.
        say: is told for whom this flow waits, and when it goes on.
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
    told = None
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            if holder != told:
                log(f"waiting for the workspace: {holder} works in it")
                told = holder
            time.sleep(POLL_SECONDS)
        else:
            if told is not None:
                log("the workspace is free: going on")
            return


def _holder(descriptor: int) -> str:
    try:
        told = json.loads(os.pread(descriptor, 4096, 0))
        return f"{told['flow']} (process {told['pid']})"
    except (ValueError, KeyError, TypeError):  # it is writing this very moment
        return "another flow"


def _let_go(watchdog: subprocess.Popen[str]) -> None:
    """Stop what still runs: a task of another thread does not hear of the signal that ends the flow."""
    for group in list(_groups):
        stop_group(group)
    assert watchdog.stdin is not None
    with suppress(BrokenPipeError):
        watchdog.stdin.close()
    watchdog.wait()


def watch(kind: str, pid: int) -> None:
    """Have a process, or a group of them, ended when this process dies; `kind` is `group` or `process`."""
    if kind == "group":
        _groups.add(pid)
    _tell(f"+{kind} {pid}\n")


def forget(kind: str, pid: int) -> None:
    _groups.discard(pid)
    _tell(f"-{kind} {pid}\n")


def _tell(line: str) -> None:
    if _watchdog is not None and _watchdog.stdin is not None:
        with suppress(BrokenPipeError):  # somebody killed it
            _watchdog.stdin.write(line)
            _watchdog.stdin.flush()


def stop_group(group: int) -> None:
    """SIGINT to a stage and all that it started, which save and end; SIGKILL to what does not."""
    from pipelines.runtime.watchdog import end_group

    with handled_by(signal.SIG_IGN):  # a second signal must not cut short the saving that the first one requested
        end_group(group, _alive)


def _alive(group: int) -> bool:
    """Whether the group still has a process that lives: the dead wait for a parent that may never ask for them."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
