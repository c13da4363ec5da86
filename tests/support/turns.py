"""Processes that ask for turns with the same subject again and again, played by threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from assay.tracking.tracker import Tracker
from assay.tracking.turns import turn


def take_turns(trackers: Sequence[Tracker], each: int) -> tuple[int, list[int]]:
    """Let each tracker have so many turns at the same time; the most that had one at once, and the tickets in order."""
    inside, most, order = 0, 0, list[int]()
    lock = threading.Lock()

    def work(tracker: Tracker) -> None:
        nonlocal inside, most
        for _ in range(each):
            with turn(tracker, "model one", lambda _: None) as held:
                with lock:
                    inside += 1
                    most = max(most, inside)
                    order.append(held.number)
                held.require()
                with lock:
                    inside -= 1

    with ThreadPoolExecutor(len(trackers)) as pool:
        list(pool.map(work, trackers))
    return most, order
