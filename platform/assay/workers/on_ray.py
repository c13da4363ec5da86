"""Work on Ray in a thread, watched by the main thread: whatever of Ray dies, the work goes on, on a new one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from assay.errors import AssayError, Unavailable, WorkError
from assay.files import read_json
from assay.log import Log
from assay.settings import Settings
from assay.train.folder import FAILURE
from assay.workers.deaths import TICK_SECONDS, Deaths
from assay.workers.joined import join_noted
from assay.workers.ray_private import cluster_answers, ray_alive, ray_stopped
from assay.workers.ray_session import RayDied, ray_running

END_SECONDS = 30.0
"""For this long work may take to notice that its Ray is gone; then it is left alone, for it changes nothing more."""
STOPPED_SECONDS = 30.0
"""For this long our own Ray may be stopped, by SIGSTOP or a frozen container, before it counts as dead."""
GONE_SECONDS = 15.0
"""For this long a cluster may refuse to answer. After a minute Ray's own client would end this process."""
PROBE_SECONDS = 2.0
AGAIN = "give the same command again, which continues from the last checkpoint"
"""What to do about a damaged file of a training."""

Attempt = Callable[[threading.Event], AbstractContextManager[Callable[[], None]]]
"""One attempt: what it gives is called in a thread. The event is set once its Ray is to be used no more."""


def on_ray(
    attempt: Attempt, settings: Settings, folder: Path, tick: Callable[[], None], deaths: Deaths, log: Log
) -> None:
    """Work on Ray to the end, calling `tick` several times a second; if our own Ray dies, again on a new one.

    Raises:
        WorkError: the work failed, or Ray died too often.
        Unavailable: Ray does not start, or the cluster does not answer any more.
        Interrupted: a stop was requested while nothing ran.
    """
    while True:
        over = threading.Event()
        with attempt(over) as body, join_noted(folder, settings.ray_address):
            work = Watched(body)
            try:
                with ray_running(settings, log, deaths.stopped):
                    return work.run(folder, _Watch(settings.ray_address), tick)
            except RayDied as error:
                over.set()
                work.end(END_SECONDS)
                died = error
            finally:
                over.set()
        deaths.add("Ray", str(died), log)


class Watched:
    """A function that runs in a thread, while the calling thread ticks, and is raised there what it raises."""

    def __init__(self, target: Callable[[], None]) -> None:
        self.target = target
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._body, name="training", daemon=True)

    def _body(self) -> None:
        try:
            self.target()
        except BaseException as error:  # handed to the main thread, which raises it
            self.failure = error

    def run(self, folder: Path, *ticks: Callable[[], None]) -> None:
        self.thread.start()
        while self.thread.is_alive():
            self.thread.join(TICK_SECONDS)
            for tick in ticks:
                tick()
        ticks[-1]()
        if self.failure is not None:
            raise_recorded(self.failure, folder)

    def end(self, seconds: float) -> None:
        """Wait for the thread, if it was started."""
        if self.thread.ident is not None:
            self.thread.join(seconds)


def raise_recorded(error: BaseException, folder: Path) -> None:
    """Raise the failure that a worker recorded in the folder; without one (a worker died) the error itself."""
    if isinstance(error, AssayError):
        raise error
    if (folder / FAILURE).exists():
        failure = read_json(folder / FAILURE, AGAIN, ("message", "expected"))
        more = "" if failure["expected"] else f" (the traceback is in {folder / FAILURE})"
        raise WorkError(f"{failure['message']}{more}") from error
    raise error


class _Watch:
    """Looks whether Ray lives, each time it is called."""

    def __init__(self, address: str | None) -> None:
        self.address = address
        self.well = self.probed = time.monotonic()

    def __call__(self) -> None:
        """Raises `RayDied` for a Ray of our own, `Unavailable` for a cluster."""
        now = time.monotonic()
        if self.address is None:
            if not ray_alive():
                raise RayDied("its servers are gone")
            if not ray_stopped():
                self.well = now
            elif now - self.well > STOPPED_SECONDS:
                raise RayDied(f"its servers were stopped for {STOPPED_SECONDS:.0f} s")
        elif now - self.probed > PROBE_SECONDS:
            if cluster_answers():
                self.well = time.monotonic()
            elif now - self.well > GONE_SECONDS:
                raise Unavailable(
                    f"ASSAY_RAY_ADDRESS {self.address}: Ray is gone; to continue from the last checkpoint, run the "
                    "same command"
                )
            self.probed = time.monotonic()
