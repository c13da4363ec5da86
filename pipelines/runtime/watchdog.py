"""Sleeps next to a flow and holds its lock; when the flow dies, even by `kill -9`, it ends what the flow had started.

It runs as a plain script that imports only the standard library, because a flow waits for its start.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

STOP_SECONDS = 25.0
"""How long a stage that is stopped may take to save its checkpoint: less than the 30 s that Prefect gives a flow."""
KILL_SECONDS = 5.0
POLL_SECONDS = 0.05


def end_group(group: int, alive: Callable[[int], bool]) -> None:
    """Ask a process group to save and end, and kill what does not."""
    for number, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        limit = time.monotonic() + seconds
        while alive(group) and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)


def exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when its flow does, and not before
    watched: set[int] = set()
    for line in sys.stdin:
        (watched.add if line[0] == "+" else watched.discard)(int(line[1:]))
    for group in watched:
        end_group(group, exists)


if __name__ == "__main__":
    main()
