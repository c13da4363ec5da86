"""Which process owns a run in object storage, out of reach of file locks: a lease, renewed while its owner lives.

Taking, renewing and releasing are conditional writes, so of two processes that try at the same moment one succeeds, and
nobody touches the lease of another. Each owner has a higher number than those before it, and all that it writes has
that number in its name: what a process writes that was cut off and believes itself the owner, no successor reads.
"""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from assay.errors import AssayError, Unavailable, WorkError
from assay.files import load_json
from assay.owner import Owner
from assay.storage.object_store import ObjectStore

NAME = "lease.json"
ATTEMPTS = "attempts"
"""The folder of what the owners have written, one folder each."""
RENEW_SECONDS = 5.0
LASTS_SECONDS = 45.0
"""After this time without a renewal its owner is considered dead."""
TURN_SECONDS = 120.0
POLL_SECONDS = 0.2


class TakenOver(WorkError):
    """Another process has taken the run over: this one must leave its record alone."""


@dataclass(frozen=True)
class Stored:
    """A lease as it is stored. `token` is empty if it is free; `age` in seconds since it was renewed."""

    number: int
    token: str
    owner: Owner | None
    mark: str
    age: float

    @property
    def free(self) -> bool:
        return not self.token

    @property
    def over(self) -> bool:
        """Whether the owner has died, as far as anybody can tell."""
        return self.age >= LASTS_SECONDS or (self.owner is not None and self.owner.life == "gone")


class Lease:
    """The lease of one run. `lost` is called, in a thread, when another process has taken it.

    Attributes:
        number: of this owner, from 1.
        is_lost: whether another process has taken it.
    """

    def __init__(self, store: ObjectStore, lost: Callable[[], None] = lambda: None) -> None:
        self.store, self._tell = store, lost
        self.number, self.is_lost = 0, False
        self._token = secrets.token_hex(16)
        self._mark: str | None = None
        self._renewed = -math.inf
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def take(self) -> bool:
        """Take the lease; False if another process holds it. Raises `AssayError` if the store does not answer."""
        found = read(self.store)
        if found is not None and not found.free and not found.over:
            return False
        self.number = (found.number if found else 0) + 1
        if not self._exchange(self._token, found.mark if found else None):
            return False
        self._thread.start()
        return True

    def release(self) -> None:
        """Free it for others at once, if it is still ours; if that cannot be said to the store, it runs out by itself.

        Its number stays as long as there is anything that an owner has written.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._busy, suppress(AssayError):
            if self.is_lost or self._mark is None or not self._exchange("", self._mark):
                return
            if not self.store.folders(ATTEMPTS):
                self.store.remove_marked(NAME, self._mark)

    def owns(self) -> bool:
        """Whether nobody can have taken it: it was renewed lately, or is now."""
        with self._busy:
            if not self._fresh() and not self.is_lost:
                with suppress(AssayError):
                    self._renew()
            return self._fresh() and not self.is_lost

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Raise `TakenOver` at the end of the block, whatever happened in it, if the lease was lost."""
        try:
            yield
        except Exception as error:
            if self.is_lost:
                raise TakenOver(TAKEN) from error
            raise
        if self.is_lost:
            raise TakenOver(TAKEN)

    def _fresh(self) -> bool:
        return _now() - self._renewed < LASTS_SECONDS - RENEW_SECONDS

    def _run(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            with self._busy, suppress(Exception):  # the store does not answer: others cannot take it either
                self._renew()
            if self.is_lost:
                self._tell()
                return

    def _renew(self) -> None:
        if self.is_lost or self._exchange(self._token, self._mark):
            return
        # Somebody has removed it, whom nobody let: it is put back, unless another may have had it meanwhile.
        self.is_lost = not (self._fresh() and self._exchange(self._token, None))

    def _exchange(self, token: str, mark: str | None) -> bool:
        """Store the lease if it has this mark, or is ours: an answer to an earlier write may have been lost."""
        began = _now()
        state = {"number": self.number, "token": token, "owner": Owner.here().plain(), "nonce": secrets.token_hex(8)}
        new = self.store.exchange(NAME, json.dumps(state).encode(), mark)
        if new is None:
            found = read(self.store)
            if found is None or self._token != found.token:
                return False
            if token != found.token:  # it is to be released
                return self._exchange(token, found.mark)
            new = found.mark
        self._mark, self._renewed = new, began
        return True


def _now() -> float:
    """Seconds by a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


TAKEN = "another process has taken this run over, because this one could not renew its lease in time; it goes on there"


def read(store: ObjectStore) -> Stored | None:
    """The lease in a store; None if there is none."""
    found = store.get_marked(NAME)
    if found is None:
        return None
    content, mark, age = found
    try:
        state = load_json(content)
        return Stored(int(state["number"]), str(state["token"]), Owner.read(state["owner"]), mark, age)
    except (ValueError, KeyError, TypeError, OverflowError):
        return Stored(0, "unknown", None, mark, age)  # of an earlier Assay: until it runs out


def is_free(store: ObjectStore) -> bool:
    """Whether nobody holds the lease, alive or dead."""
    found = read(store)
    return found is None or found.free


def is_dead(store: ObjectStore) -> bool:
    """Whether the owner of the lease has died without releasing it."""
    found = read(store)
    return found is not None and not found.free and found.over


@contextmanager
def turn(store: ObjectStore) -> Iterator[None]:
    """Hold the lease of a store for the block, after waiting for whoever has it. Raises `Unavailable` after a while."""
    lease, limit = Lease(store), time.monotonic() + TURN_SECONDS
    while not lease.take():
        if time.monotonic() > limit:
            raise Unavailable(f"{store.address}/{NAME}: another process holds it for long: run the same command again")
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lease.release()
