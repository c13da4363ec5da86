"""Signal handlers that last as long as a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | signal.Handlers

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def handled_by(handler: Handler, numbers: Iterable[signal.Signals] = STOPPING) -> Iterator[None]:
    """Let `handler` answer these signals until the end of the block, then put the old handlers back.

    Outside the main thread, which alone may set handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)
