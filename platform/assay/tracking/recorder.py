"""Ships the spool of a run to MLflow in batches, off the training path: exactly once, even after an outage or a kill.

The offset behind the last shipped line is kept next to the spool. A batch that was sent before its offset was written
is sent again with the same timestamps, and MLflow's SQL store keeps one of equal points.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from assay.errors import Unavailable
from assay.files import write_atomic
from assay.tracking.reach import one_line
from assay.tracking.tracker import BATCH, Point, Tracker
from assay.train.folder import SHIPPED, SPOOL
from assay.train.spool import read_spool

SECONDS = 3.0
"""Between two shipments: each takes a moment of a core that a small machine trains on."""
LONGEST_SECONDS = 30.0
"""Between two tries while the store does not answer."""


class Recorder:
    """A thread that ships one run's spool every few seconds until `close`."""

    def __init__(self, tracker: Tracker, run_id: str, folder: Path, warn: Callable[[str], None]) -> None:
        self.tracker = tracker
        self.run_id = run_id
        self.folder = folder
        self.warn = warn
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        wait, warned = SECONDS, False
        while not self._stop.wait(wait):
            try:
                ship(self.tracker, self.run_id, self.folder)
                wait, warned = SECONDS, False
            except Exception as error:  # whatever the store's client raises: training continues, the spool keeps all
                wait = min(2 * wait, LONGEST_SECONDS)
                if not warned:
                    self.warn(f"the tracking store does not answer ({why(error)}); metrics wait in {self.folder}")
                warned = True

    def close(self) -> None:
        """Ship what is left. Raises `Unavailable` if the store does not answer; then the next run ships it."""
        self._stop.set()
        self._thread.join()
        try:
            ship(self.tracker, self.run_id, self.folder)
        except Exception as error:
            raise Unavailable(
                f"the tracking store does not answer ({why(error)}); the metrics are safe in {self.folder} and "
                "are shipped by the next `assay train`"
            ) from error


def ship(tracker: Tracker, run_id: str, folder: Path) -> int:
    """Send the lines that were not sent yet; returns the number of metrics sent."""
    spool, marker = folder / SPOOL, folder / SHIPPED
    if not spool.exists():
        return 0
    with spool.open("rb") as file:
        os.fsync(file.fileno())  # so that after a power cut the spool has what the store has
    offset = int(json.loads(marker.read_text())) if marker.exists() else 0
    sent = 0
    batch: list[Point] = []
    for record, end in read_spool(spool, offset):
        points = [(name, value, record.time, record.step) for name, value in record.metrics.items()]
        if len(batch) + len(points) > BATCH:
            sent += _send(tracker, run_id, batch, marker, offset)
            batch = []
        batch += points
        offset = end
    return sent + (_send(tracker, run_id, batch, marker, offset) if batch else 0)


def _send(tracker: Tracker, run_id: str, batch: list[Point], marker: Path, offset: int) -> int:
    tracker.log_points(run_id, batch)
    write_atomic(marker, json.dumps(offset).encode())
    return len(batch)


def why(error: Exception) -> str:
    """Why a store does not answer, without repeating that it does not."""
    cause = error.__cause__ if isinstance(error, Unavailable) else None
    return one_line(cause or error)[:200]
