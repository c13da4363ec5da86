"""Ships the spool of a run to MLflow in batches, off the training path: exactly once, even after an outage or a kill.

The offset behind the last shipped line is kept next to the spool. A batch that was sent before its offset was written
is sent again with the same timestamps, and MLflow's SQL store keeps one of equal points. Where the spool or the offset
is damaged, this is said, and MLflow is asked which points it has: no other is sent twice, none that is left is lost.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from assay.errors import Unavailable
from assay.log import Log
from assay.sealed import Line
from assay.tracking.reach import one_line
from assay.tracking.shipped import Shipped, read_shipped
from assay.tracking.tracker import BATCH, Point, Tracker
from assay.train.folder import SHIPPED, SPOOL, STORED
from assay.train.spool import damaged_lines, read_spool

SECONDS = 3.0
"""Between two shipments: each takes a moment of a core that a small machine trains on."""
LONGEST_SECONDS = 30.0
"""Between two tries while the store does not answer."""


class Recorder:
    """A thread that ships one run's spool every few seconds until `close`.

    Args:
        owns: whether the run is still this process's: nothing is shipped while it may be another's.
    """

    def __init__(
        self,
        tracker: Tracker,
        run_id: str,
        folder: Path,
        warn: Callable[[str], None],
        owns: Callable[[], bool] = lambda: True,
    ) -> None:
        self.tracker = tracker
        self.run_id = run_id
        self.folder = folder
        self.warn = warn
        self.owns = owns
        self._shipment = Shipment(tracker, run_id, folder, warn)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        wait, warned = SECONDS, False
        while not self._stop.wait(wait):
            try:
                if self.owns():
                    self._shipment.send()
                wait, warned = SECONDS, False
            except Exception as error:  # whatever the store's client raises: training continues, the spool keeps all
                wait = min(2 * wait, LONGEST_SECONDS)
                if not warned:
                    self.warn(f"the tracking store does not answer ({why(error)}); metrics wait in {self.folder}")
                warned = True

    def close(self) -> None:
        """Ship what is left. Raises `Unavailable` if that cannot be done now; then the next run ships it."""
        self._stop.set()
        self._thread.join()
        if not self.owns():
            raise Unavailable(
                f"the lease of run {self.run_id} could not be renewed; its metrics are safe in {self.folder} and are "
                "shipped by whoever continues it"
            )
        try:
            self._shipment.send()
        except Exception as error:
            raise Unavailable(
                f"the tracking store does not answer ({why(error)}); the metrics are safe in {self.folder} and "
                "are shipped by the next `assay train`"
            ) from error


class Shipment:
    """What is sent of one spool. Looks at all of it once, and from then on at what is new."""

    def __init__(self, tracker: Tracker, run_id: str, folder: Path, warn: Log) -> None:
        self.tracker, self.run_id, self.folder, self.warn = tracker, run_id, folder, warn
        self.shipped: Shipped | None = None
        self.file = 0  # the spool's number in the file system
        self.known: set[tuple[str, int]] = set()  # (metric, step) in the store, if the spool is damaged
        self.at = 0  # behind the last whole line that was read
        self.looked = time.monotonic()

    def send(self) -> int:
        """Send the lines that were not sent yet; returns the number of metrics sent."""
        spool = self.folder / SPOOL
        if not spool.exists():
            return 0
        with spool.open("rb") as file:
            os.fsync(file.fileno())  # so that after a power cut the spool has what the store has
            status = os.fstat(file.fileno())
        if self.shipped is None or self.file != status.st_ino:  # another's state may have replaced it
            self.shipped, self.file = self._look(), status.st_ino
        elif status.st_size < self.shipped.offset:
            self.shipped = self._cut(status.st_size)
        sent, offset, limit = 0, self.shipped.offset, self._limit()
        batch: list[Point] = []
        self.at = offset
        for record, end in read_spool(spool, offset, self._found):
            if end > limit:
                break
            points = [
                (name, value, record.time, record.step)
                for name, value in record.metrics.items()
                if (name, record.step) not in self.known
            ]
            if len(batch) + len(points) > BATCH:
                sent += self._send(batch, offset)
                batch = []
            batch += points
            offset = self.at = end
        sent += self._send(batch, offset) if offset > self.shipped.offset else 0
        self.looked = time.monotonic()
        return sent

    def _limit(self) -> float:
        """How much may be sent: of a run in object storage, what is there. From there another may continue it."""
        note = self.folder / STORED
        if not note.exists():
            return math.inf
        text = note.read_text(errors="replace")
        return int(text) if text.isdecimal() else 0

    def _look(self) -> Shipped:
        """How far the store has the spool, after a look at the whole of it."""
        noted = read_shipped(self.folder)
        lines = damaged_lines(self.folder / SPOOL)
        if noted is not None and not noted.damaged and not lines:
            return noted
        self._ask()
        if noted is None:
            self.warn(f"{self.folder / SHIPPED}: does not fit the {SPOOL} beside it; all that is there is sent again")
        if lines and not (noted and noted.damaged):
            self._say(lines)
        return self._damaged(noted.offset if noted else 0)

    def _damaged(self, offset: int) -> Shipped:
        found = Shipped(offset, damaged=True)
        found.write(self.folder)
        return found

    def _cut(self, size: int) -> Shipped:
        """What to go on with after somebody has cut the spool: all that is left or comes is looked at again."""
        assert self.shipped is not None
        self._ask()
        self.warn(
            f"{self.folder / SPOOL}: somebody cut it to {size} bytes; the {self.shipped.offset} sent before are kept; "
            f"what was measured in the {time.monotonic() - self.looked:.1f} s since then may be lost"
        )
        return self._damaged(0)

    def _found(self, line: Line) -> None:
        """Note a damaged line that came after the first look."""
        assert self.shipped is not None
        if not self.shipped.damaged:
            self._ask()
            self._say(1, f" ({line.end - self.at} bytes)" if line.data is None else "")
            self.shipped = Shipped(self.shipped.offset, damaged=True)

    def _say(self, places: int, size: str = "") -> None:
        where = f"one place{size}" if places == 1 else f"{places} places"
        self.warn(
            f"{self.folder / SPOOL}: damaged in {where}; of the metrics there, those are kept that were sent before"
        )

    def _ask(self) -> None:
        self.known = {(name, step) for name, _, _, step in self.tracker.history(self.run_id)}

    def _send(self, batch: list[Point], offset: int) -> int:
        assert self.shipped is not None
        if batch:
            self.tracker.log_points(self.run_id, batch)
        if self.shipped.damaged:
            self.known.update((name, step) for name, _, _, step in batch)
        self.shipped = Shipped(offset, self.shipped.damaged)
        self.shipped.write(self.folder)
        return len(batch)


def ship(tracker: Tracker, run_id: str, folder: Path, warn: Log = lambda _: None) -> int:
    """Send once what was not sent yet of the spool in `folder`; returns the number of metrics sent."""
    return Shipment(tracker, run_id, folder, warn).send()


def why(error: Exception) -> str:
    """Why a store does not answer, without repeating that it does not."""
    cause = error.__cause__ if isinstance(error, Unavailable) else None
    return one_line(cause or error)[:200]
