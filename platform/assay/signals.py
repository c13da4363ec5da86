"""Signal handlers that last as long as a block."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

Handler = Callable[[int, FrameType | None], object] | signal.Handlers

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a program to end: Ctrl-C, `kill`, and a terminal that is closed."""

INTERRUPTED = 130
"""The exit code of a program that a signal stopped."""


@contextmanager
def handled_by(handler: Handler, numbers: Iterable[signal.Signals] = STOPPING) -> Iterator[None]:
    """Let `handler` answer these signals until the end of the block, then put the old handlers back.

    A SIGHUP that is ignored from the start, as by `nohup`, stays ignored. Outside the main thread, which alone may set
    handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen = [n for n in numbers if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    old = {number: signal.signal(number, handler) for number in chosen}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


class Signalled(KeyboardInterrupt):
    """A signal that asks to end.

    After a plain `KeyboardInterrupt` that was raised beneath `eval` or `exec`, which imports call, Python ends the
    process by SIGINT, even if it was handled.
    """


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """A handler that does for any signal what Python does for Ctrl-C."""
    raise Signalled


def quit_at_once() -> NoReturn:
    """End this process as a kill would: others clear up, as after a kill.

    An ordinary end takes as long as what runs in other threads, and torch aborts the process if one of them still
    computes.
    """
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h")  # a live display has hidden the cursor
    os._exit(INTERRUPTED)
