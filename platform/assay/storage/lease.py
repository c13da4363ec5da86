"""Which process owns a run in object storage, out of reach of file locks: a lease, renewed while its owner lives.

Taking and renewing are conditional writes, so two processes that try at the same moment cannot both succeed.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable

from assay.errors import AssayError
from assay.storage.object_store import ObjectStore

NAME = "lease.json"
RENEW_SECONDS = 5.0
LASTS_SECONDS = 45.0
"""After this time without a renewal its owner is considered dead."""


class Lease:
    """The lease of one run. `lost` is called, in a thread, when another process has taken it."""

    def __init__(self, store: ObjectStore, lost: Callable[[], None]) -> None:
        self.store, self.lost = store, lost
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}
        self.content = json.dumps(owner).encode()
        self.mark: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def take(self) -> bool:
        """Take the lease; False if another process holds it."""
        found = self.store.get_marked(NAME)
        if found is not None and found[2] < LASTS_SECONDS and not _gone_here(found[0]):
            return False
        self.mark = self.store.exchange(NAME, self.content, None if found is None else found[1])
        if self.mark is None:
            return False
        self._thread.start()
        return True

    def release(self) -> None:
        """Free it for others at once."""
        self._stop.set()
        self._thread.join()
        if self.mark is not None:
            self.store.remove(NAME)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            try:
                before = self.content
                self.content = json.dumps({**json.loads(before), "token": secrets.token_hex(8)}).encode()
                mark = self.store.exchange(NAME, self.content, self.mark) or self._mark_of(before, self.content)
            except AssayError:
                continue  # the store does not answer: others cannot take it either
            self.mark = mark
            if mark is None:
                self.lost()
                return

    def _mark_of(self, *contents: bytes) -> str | None:
        """The mark of the stored lease if it is ours: a renewal may have succeeded although its answer was lost."""
        found = self.store.get_marked(NAME)
        return found[1] if found is not None and found[0] in contents else None


def is_dead(store: ObjectStore) -> bool:
    """Whether the owner of the lease has died. A released lease does not exist."""
    found = store.get_marked(NAME)
    return found is not None and (found[2] >= LASTS_SECONDS or _gone_here(found[0]))


def _gone_here(content: bytes) -> bool:
    """Whether the owner was a process of this machine that has ended."""
    import psutil

    try:
        owner = json.loads(content)
        return owner["host"] == socket.gethostname() and not psutil.pid_exists(int(owner["pid"]))
    except (ValueError, KeyError, TypeError):
        return True  # not written by Assay
