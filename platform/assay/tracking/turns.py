"""One command at a time on a model or a run, whatever keeps the runs, and whichever machines the commands run on.

Who holds the lowest ticket of a subject has its turn. A holder shows every ten seconds that it lives. If it is gone
from this machine, or has been silent for a minute by the clock of the one who waits, its ticket is taken away. A
holder counts its turn as lost sooner than that, so no two ever have it at once.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

from assay.errors import Unavailable, WorkError
from assay.log import Log
from assay.owner import Owner
from assay.tracking.tickets import Ticket
from assay.tracking.tracker import Tracker

BEAT_SECONDS = 10.0
LOST_SECONDS = 40.0
"""After that much silence, its holder no longer relies on a ticket: the rest is for what is under way to the store."""
DEAD_SECONDS = 60.0
"""After that much silence, others take a ticket away."""
LONGEST_PAUSE = 1.0  # between two looks at who is ahead


@contextmanager
def turn(tracker: Tracker, subject: str, log: Log) -> Iterator[Turn]:
    """Wait for this process's turn with a subject, such as `model digits`, and hold it until the end of the block.

    Raises:
        WorkError: the turn was lost while waiting.
    """
    owner = json.dumps({**Owner.here().plain(), "key": uuid.uuid4().hex})
    held = Turn(tracker, subject, owner)
    try:
        held.wait(log)
        yield held
    finally:
        held.end()


class Turn:
    """A ticket, renewed by a thread."""

    def __init__(self, tracker: Tracker, subject: str, owner: str) -> None:
        self.tracker, self.subject, self.owner = tracker, subject, owner
        self._renewed = time.monotonic()
        self.number = tracker.take_ticket(subject, owner)
        self._beats = count(1)
        self._one_renewal = threading.Lock()
        self._ended = threading.Event()
        self._seen: dict[int, tuple[str, float]] = {}
        threading.Thread(target=self._live, name="turn", daemon=True).start()

    def require(self) -> None:
        """Make sure of the turn before something is changed that others must not change meanwhile.

        Raises:
            WorkError: it was lost; nothing of what follows may be done.
        """
        if not self._renew():
            raise WorkError(
                f"lost the turn with {self.subject}: this process stood still, or could not reach the tracking store, "
                "for too long: run the same command again"
            )

    def wait(self, log: Log) -> None:
        """Wait until no other living process is ahead."""
        told, pause = False, 0.05
        while self._is_anyone_ahead():
            if not told:
                log(f"waiting for another process that is at work on {self.subject}")
            told = True
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if told:
            self.require()

    def end(self) -> None:
        self._ended.set()
        with suppress(Unavailable):  # whoever comes next takes the ticket away
            self.tracker.drop_ticket(self.number)

    def _is_anyone_ahead(self) -> bool:
        ahead = False
        for ticket in self.tracker.tickets():
            if ticket.number == self.number:
                continue
            if self._is_dead(ticket):
                self.tracker.drop_ticket(ticket.number)
            elif ticket.subject == self.subject and ticket.number < self.number:
                ahead = True
        return ahead

    def _is_dead(self, ticket: Ticket) -> bool:
        if ticket.owner == self.owner:  # an answer was lost, and MLflow's client asked for a ticket twice
            return True
        holder = Owner.parse(ticket.owner)
        if holder is None or holder.life == "gone":
            return True
        beat, since = self._seen.get(ticket.number, ("", 0.0))
        if beat != ticket.beat:
            self._seen[ticket.number] = (ticket.beat, time.monotonic())
            return False
        return time.monotonic() - since > DEAD_SECONDS

    def _live(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                if not self._renew():
                    return
            except Exception:  # noqa: S112 - tried again in ten seconds; `require` says what is wrong
                continue

    def _renew(self) -> bool:
        with self._one_renewal:
            now = time.monotonic()
            if now - self._renewed > LOST_SECONDS or not self.tracker.renew_ticket(self.number, str(next(self._beats))):
                self._renewed = -LOST_SECONDS
                return False
            self._renewed = now
            return True
