"""Signal handlers that last as long as a block, and children that end with this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

Handler = Callable[[int, FrameType | None], object] | signal.Handlers

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a program to end: Ctrl-C, `kill`, and a terminal that is closed."""

LOST_SECONDS = 0.5
"""After which an exception that a signal has raised counts as lost, unless it is being handled."""

INTERRUPTED = 130
"""The exit code of a program that a signal stopped."""

_asked = threading.Event()
"""Set while this process ends because a signal has asked for it."""


def ask_to_end() -> None:
    """Note that a signal has asked this process to save and end: waits are short now, and the next one quits."""
    _asked.set()


def asked_to_end() -> bool:
    """Whether a signal has asked this process to end."""
    return _asked.is_set()


@contextmanager
def handled_by(handler: Handler, numbers: Iterable[signal.Signals] = STOPPING) -> Iterator[None]:
    """Let `handler` answer these signals until the end of the block, then put the old handlers back.

    A SIGHUP that is ignored from the start, as by `nohup`, stays ignored. Outside the main thread, which alone may set
    handlers, nothing changes.

    Raises:
        Signalled: `interruptible` was asked to end, and what it raised got lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if signal.getsignal(signal.SIGALRM) is _again:
        _again(0, None)
    chosen = [n for n in numbers if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    old = {number: signal.signal(number, handler) for number in chosen}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)
        if _interrupt not in map(signal.getsignal, STOPPING):  # this was the outermost block
            _asked.clear()


class Signalled(KeyboardInterrupt):
    """A signal that asks to end.

    After a plain `KeyboardInterrupt` that was raised beneath `eval` or `exec`, which imports call, Python ends the
    process by SIGINT, even if it was handled.
    """


@contextmanager
def interruptible(numbers: Iterable[signal.Signals] = STOPPING) -> Iterator[None]:
    """Let these signals raise `Signalled` in the block, and again until it is on its way out.

    Python drops an exception that comes in the callback of a weak reference, of which each import has some, and
    libraries written in C turn it into their own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGALRM)
    try:
        with handled_by(_interrupt, numbers):
            yield
    finally:
        if signal.getsignal(signal.SIGALRM) is _again:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    if asked_to_end() and not _on_its_way():
        quit_at_once()  # another handler promised that
    ask_to_end()
    signal.signal(signal.SIGALRM, _again)
    signal.setitimer(signal.ITIMER_REAL, LOST_SECONDS, LOST_SECONDS)
    raise Signalled


def _again(_number: int, _frame: FrameType | None) -> None:
    if not _on_its_way():
        raise Signalled


def _on_its_way() -> bool:
    """Whether `Signalled` is being handled, as in a `finally` that clears up."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, Signalled):
        error = error.__context__
    return error is not None


def quit_at_once() -> NoReturn:
    """End this process as a kill would: others clear up, as after a kill.

    An ordinary end takes as long as what runs in other threads, and torch aborts the process if one of them still
    computes.
    """
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h")  # a live display has hidden the cursor
    os._exit(INTERRUPTED)


def wait_or_kill(child: subprocess.Popen[Any], seconds: float = 5.0) -> None:
    """Wait for the end of a child that was asked to end, and kill one that does not, as if it was stopped."""
    for _ in range(2):
        with suppress(subprocess.TimeoutExpired):  # after a kill: it is stuck in the kernel, and left alone
            child.wait(seconds)
            return
        child.kill()


def when_parent_dies(number: signal.Signals) -> Callable[[], None] | None:
    """What a child may call to get a signal when its parent dies, even by SIGKILL; None where that is unknown."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl  # loaded before a fork; after it nothing may be

    def ask() -> None:
        prctl(1, int(number))  # PR_SET_PDEATHSIG

    return ask
