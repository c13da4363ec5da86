"""Writes the trials of a search to MLflow, each as a child run, off the search's path.

The search's journal is the truth. What the store lacks when a search dies, the next session writes; nothing is written
twice. While the store does not answer, the search continues and the trials wait here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from assay.errors import Unavailable
from assay.owner import Owner
from assay.tracking.provenance import PREFIX, Provenance
from assay.tracking.recorder import LONGEST_SECONDS, SECONDS, ship, why
from assay.tracking.run import Run
from assay.tracking.runs import continuing
from assay.tracking.sessions import note_starts, session_tag
from assay.tracking.tracker import Tracker
from assay.train.folder import FAILURE

STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "over": "FINISHED", "failed": "FAILED"}


@dataclass(frozen=True)
class Entry:
    """A trial to be recorded.

    Attributes:
        folder: where its spool is.
        config: its resolved experiment.
        tags: besides those of the search.
        status: of the trial; `running` if it has not ended.
        time: when this was so, in milliseconds since 1970.
    """

    number: int
    folder: Path
    config: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str = "running"
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    time: int = field(default_factory=lambda: time.time_ns() // 1_000_000)


class TrialRecorder:
    """A thread that records what `put` hands it, in order, and ships the metrics of running trials."""

    def __init__(
        self,
        tracker: Tracker,
        search_id: str,
        experiment: str,
        provenance: Callable[[Entry], Provenance],
        warn: Callable[[str], None],
        session: int = 1,
    ) -> None:
        self.session = session
        self.tracker = tracker
        self.search_id = search_id
        self.experiment = experiment
        self.provenance = provenance
        self.warn = warn
        runs = self._recorded()
        self.run_ids = {number: run.info.run_id for number, run in runs.items()}
        self.done = {number for number, run in runs.items() if run.info.status in ("FINISHED", "FAILED")}
        self.running: dict[int, Entry] = {}
        self._begun: set[int] = set()  # trials whose run was asked for: it may be there though no answer came
        self._waiting: deque[Entry] = deque()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trials", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Record that a trial started, or how it ended. Returns at once."""
        self._waiting.append(entry)
        self._wake.set()

    def close(self) -> None:
        """Record what is left. Raises `Unavailable` if the store does not answer; then the next session records it."""
        self._stop.set()
        self._wake.set()
        self._thread.join()
        try:
            while self._waiting:
                with self.tracker.turn():
                    self._record(self._waiting[0])
                self._waiting.popleft()
            for number, entry in self.running.items():  # they wait for the next session
                ship(self.tracker, self.run_ids[number], entry.folder, self.warn)
                again = continuing(self.search_id, {PREFIX + name: value for name, value in entry.tags.items()})
                self.tracker.set_status(
                    self.run_ids[number], "KILLED", f"the search was stopped; to continue it: {again}"
                )
        except Exception as error:
            raise Unavailable(
                f"the tracking store does not answer ({why(error)}); {len(self._waiting)} trials are safe in the "
                "search's folder and are recorded when the search is resumed"
            ) from error

    def _run(self) -> None:
        wait, shipped, warned = SECONDS, time.monotonic(), False
        while self._waiting or not self._stop.is_set():
            try:
                if self._waiting:
                    with self.tracker.turn():
                        self._record(self._waiting[0])
                    self._waiting.popleft()
                else:
                    self._wake.wait(SECONDS)
                    self._wake.clear()
                if time.monotonic() - shipped > SECONDS:
                    self._ship_running()
                    shipped = time.monotonic()
                wait, warned = SECONDS, False
            except Exception as error:  # whatever the store's client raises: the search continues
                if not warned:
                    self.warn(f"the tracking store does not answer ({why(error)}); trials wait to be recorded")
                warned = True
                if self._stop.wait(wait):
                    return
                wait = min(2 * wait, LONGEST_SECONDS)

    def _ship_running(self) -> None:
        for number, entry in self.running.items():
            with self.tracker.turn():
                ship(self.tracker, self.run_ids[number], entry.folder, self.warn)

    def _recorded(self) -> dict[int, Run]:
        """The runs of trials that the store has, by the trial's number."""
        runs = {run.data.tags.get("assay.trial"): run for run in self.tracker.children(self.experiment, self.search_id)}
        return {int(number): run for number, run in runs.items() if number is not None}

    def _begin(self, entry: Entry) -> str:
        """The new run of a trial."""
        if entry.number in self._begun and (run := self._recorded().get(entry.number)) is not None:
            return run.info.run_id
        self._begun.add(entry.number)
        provenance = self.provenance(entry)
        tags = {**provenance.tags, **self._own(provenance), "trial": str(entry.number), "search_id": self.search_id}
        name = f"trial-{entry.number:04d}"
        return self.tracker.begin(self.experiment, replace(provenance, tags=tags), self.search_id, name)

    def _has_ended(self, number: int) -> bool:
        """True for a trial whose end waits to be recorded too: then its start is not recorded first."""
        return any(entry.number == number and entry.status != "running" for entry in list(self._waiting))

    def _record(self, entry: Entry) -> None:
        number = entry.number
        if number in self.done or (entry.status == "running" and self._has_ended(number)):
            return
        if number not in self.run_ids:
            self.run_ids[number] = self._begin(entry)
            self.running[number] = entry
        run_id = self.run_ids[number]
        if entry.status == "running":
            if number not in self.running:
                own = self._own(self.provenance(entry))
                self.tracker.set_tags(run_id, {PREFIX + name: value for name, value in own.items()})
                self.tracker.set_status(run_id, "RUNNING")
                self.running[number] = entry
            return
        ship(self.tracker, run_id, entry.folder, self.warn)
        note_starts(self.tracker, run_id, entry.folder)
        if (entry.folder / FAILURE).exists():
            self.tracker.log_file(run_id, ".", entry.folder / FAILURE)
        costs = {name: value for name, value in entry.metrics.items() if name.startswith("cost/")}
        tags = {"trial_status": entry.status, "reason": entry.reason}
        self.tracker.end(run_id, STATUS[entry.status], costs, tags, entry.time)
        self.done.add(number)
        self.running.pop(number, None)

    def _own(self, provenance: Provenance) -> dict[str, str]:
        """What a trial that this process works on says of it: the session has the number of the search's."""
        return {"owner": Owner.here().text(), **session_tag(self.session, provenance)}
