"""A run's folder in object storage, through which rank 0 on one node and the driver on another exchange files.

Needed only if the nodes share no folder. Then each worker has a folder on its own node. Rank 0's is copied to the place
of its attempt (`attempts.py`) while it trains: the metrics in pieces, each named by its offset; a checkpoint file by
file, its manifest last, so that it is read only when it is whole. The driver pulls the same files into its own folder.
Nothing is removed here before the store has said that it has it.
"""

from __future__ import annotations

import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from assay.errors import AssayError, Unavailable, last_line
from assay.log import Log
from assay.storage import attempts
from assay.storage.lease import ATTEMPTS, TakenOver
from assay.storage.object_store import Entry, ObjectStore
from assay.train.checkpoint import KEPT, MANIFEST
from assay.train.folder import CHECKPOINTS, FAILURE, LOG, OUTCOME, PICTURES, SENT, SPOOL, STARTS, STEPS, STOP, STORED

SECONDS = 2.0
"""Between two synchronizations."""
LONGEST_SECONDS = 60.0
"""Between two tries while the store does not answer."""
PATIENCE_SECONDS = 6 * 3600.0
"""How long a training waits for the store at its beginning and at its end."""
UNSAVED_SECONDS = 1800.0
"""How long a training continues while its newest checkpoint is on its own node only."""
JOIN_SECONDS = 0.2
"""Between two looks whether rank 0 has begun."""
SMALL = (STEPS, LOG, OUTCOME, STARTS)


class Mirror(ABC):
    """One end: a folder here, and a place in the store. A thread keeps them in step until `close`.

    A store that does not answer, or whatever else fails, is logged once and tried again, less and less often.
    """

    def __init__(self, store: ObjectStore, folder: Path, log: Log) -> None:
        self.store, self.folder, self.log = store, folder, log
        self.marks: dict[str, object] = {}
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        self._thread.start()

    def sync(self) -> None:
        """Copy what is new, now. Raises what the store raises."""
        with self._busy:
            self._sync()

    def catch_up(self) -> None:
        """Copy what is new, for as long as it takes."""
        self._patiently(self.sync)

    def close(self) -> None:
        """Copy the rest, for as long as it takes, and end.

        Raises:
            Unavailable: the store did not answer for hours, or a stop was requested meanwhile; nothing is lost.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._patiently(self._last)

    def _run(self) -> None:
        pause, logged = SECONDS, False
        while not self._stop.wait(pause):
            try:
                self.sync()
                pause, logged = SECONDS, False
            except TakenOver as error:
                self.log(str(error))
                return
            except Exception as error:  # whatever it is: the thread is the run's way out of this machine
                if not logged:
                    self.log(f"{_line(error)}; trying again")
                pause, logged = min(2 * pause, LONGEST_SECONDS), True
            self._watch()

    def _patiently(self, work: Callable[[], None]) -> None:
        """Do it, again and again while it fails."""
        began, pause, logged = time.monotonic(), SECONDS, False
        while True:
            try:
                return work()
            except TakenOver:
                raise
            except Exception as error:
                if (self.folder / STOP).exists() or time.monotonic() - began > PATIENCE_SECONDS:
                    raise Unavailable(
                        f"{_line(error)}: the run is safe in {self.folder} on {socket.gethostname()}, "
                        "where the same command continues it"
                    ) from error
                if not logged:
                    self.log(f"{_line(error)}; waiting for it, with everything safe in {self.folder}")
                logged = True
            self._sleep(pause)
            pause = min(2 * pause, LONGEST_SECONDS)

    def _sleep(self, seconds: float) -> None:
        """Wait, but not on after a request to stop."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and not (self.folder / STOP).exists():
            time.sleep(0.1)

    @abstractmethod
    def _sync(self) -> None:
        """Copy what is new; called by one thread at a time."""

    def _last(self) -> None:
        """Copy the rest."""
        self.sync()

    def _watch(self) -> None:  # noqa: B027 - only one end has something to watch
        """Called by the thread after each try."""


@contextmanager
def sending(address: str, attempt: str, folder: Path, log: Log, writer: bool = True) -> Iterator[None]:
    """Let a worker begin with the files in the store, and copy its own there. Without an address: do nothing."""
    if not address:
        (folder / STORED).unlink(missing_ok=True)
        yield
        return
    sender = Sender(ObjectStore(address), attempt, folder, log, writer)
    sender.begin()
    sender.start()
    try:
        yield
    finally:
        sender.close()


@contextmanager
def receiving(address: str, folder: Path, log: Log) -> Iterator[Receiver | None]:
    """Copy to `folder` the run that workers send to the store. Without an address: they share the folder."""
    if not address:
        yield None
        return
    receiver = Receiver(ObjectStore(address), folder, log)
    receiver.start()
    try:
        yield receiver
    except BaseException:
        receiver.give_up()
        raise
    receiver.close()


class Sender(Mirror):
    """The end of rank 0, the `writer`, in one attempt at the run in `store`. Other ranks send only their failure."""

    def __init__(self, store: ObjectStore, attempt: str, folder: Path, log: Log, writer: bool = True) -> None:
        super().__init__(store, folder, log)
        self.attempt, self.writer = attempt, writer
        self.place = attempts.of(store, attempt)
        self.pieces: list[tuple[int, int]] = []  # offset and size of those in the store
        self.old: set[str] = set()  # pieces that are contained in another
        self.unsaved_since: float | None = None

    @property
    def sent(self) -> int:
        """How much of the spool is in the store, in bytes."""
        return sum(self.pieces[-1]) if self.pieces else 0

    def begin(self) -> None:
        """Take over the newest checkpoints and metrics of earlier attempts. Other ranks wait for those of rank 0."""
        self._patiently(self._take_over if self.writer else self._join)

    def _take_over(self) -> None:
        if attempts.inherit(self.store, self.attempt, self.folder):
            self._send_metrics()
            for path in sorted((self.folder / CHECKPOINTS).glob("step-*")):
                self._upload(path)
        self.place.put(attempts.BEGUN, b"")  # from here on the run is in the store until it has finished

    def _join(self) -> None:
        while self.place.get(attempts.BEGUN) is None:
            time.sleep(JOIN_SECONDS)
        earlier = attempts.attempts(self.store, self.attempt)
        attempts.pull_checkpoints([self.place, *earlier], self.folder)

    def _sync(self) -> None:
        own = self.place.files()
        if attempts.BEGUN not in own or self.store.folders(ATTEMPTS, after=self.attempt):
            (self.folder / STOP).touch()
            raise TakenOver("a later attempt at this run has begun, or finished it; this one ends")
        if STOP in own:
            (self.folder / STOP).touch()
        self._send(FAILURE)
        if not self.writer:
            return
        self._send(STEPS)  # before the metrics, as in a shared folder
        self._send_metrics()  # before the checkpoint: a resumed run does not send them again
        self._send_checkpoints()
        for name in SMALL:
            self._send(name)
        for path in sorted((self.folder / PICTURES).glob("*.png")):
            self._send(f"{PICTURES}/{path.name}")

    def _last(self) -> None:
        with suppress(TakenOver):  # everything there was saved by another
            self.sync()
        (self.folder / SENT).touch()

    def _watch(self) -> None:
        """Stop the training if its newest checkpoint has not been in the store for long."""
        saved = self._newest() in (None, self.marks.get(CHECKPOINTS))
        if saved or self.unsaved_since is None:
            self.unsaved_since = None if saved else time.monotonic()
        elif time.monotonic() - self.unsaved_since > UNSAVED_SECONDS and not (self.folder / STOP).exists():
            self.log(
                f"no checkpoint has reached {self.place.address} for {UNSAVED_SECONDS / 60:.0f} minutes: stopping; "
                f"the run is safe in {self.folder} on {socket.gethostname()}"
            )
            (self.folder / STOP).touch()

    def _send(self, name: str) -> None:
        path = self.folder / name
        with suppress(FileNotFoundError):
            status = path.stat()
            mark = (status.st_size, status.st_mtime_ns)
            if self.marks.get(name) != mark:
                self.place.put(name, path.read_bytes())
                self.marks[name] = mark

    def _send_metrics(self) -> None:
        """Send what is new as one piece with the earlier ones that are not larger: few pieces, whatever their sum."""
        path = self.folder / SPOOL
        if not path.exists():
            return
        start, kept = self.sent, list(self.pieces)
        end = _end_of_lines(path, start)
        if end > start:
            while kept and kept[-1][1] <= end - start:
                start = kept.pop()[0]
            with path.open("rb") as file:
                file.seek(start)
                self.old.add(attempts.piece(start))  # should the answer be lost
                self.place.put(attempts.piece(start), file.read(end - start))
            self.old.update(attempts.piece(offset) for offset, _ in self.pieces[len(kept) :])
            self.pieces = [*kept, (start, end - start)]
            self.old -= {attempts.piece(offset) for offset, _ in self.pieces}
            (self.folder / STORED).write_text(str(end))
        for name in sorted(self.old):
            self.place.remove(name)
            self.old.discard(name)

    def _newest(self) -> str | None:
        return max((path.name for path in (self.folder / CHECKPOINTS).glob("step-*")), default=None)

    def _send_checkpoints(self) -> None:
        """Send the newest one, unless the store has it. If it is removed here meanwhile, a newer one follows."""
        newest = self._newest()
        if newest is None or newest == self.marks.get(CHECKPOINTS):
            return
        with suppress(FileNotFoundError):
            self._upload(self.folder / CHECKPOINTS / newest)
            self._drop_old(newest)

    def _upload(self, checkpoint: Path) -> None:
        files = [path for path in sorted(checkpoint.iterdir()) if path.name != MANIFEST]
        for path in [*files, checkpoint / MANIFEST]:
            self.place.upload(f"{CHECKPOINTS}/{checkpoint.name}/{path.name}", path)
        self.marks[CHECKPOINTS] = checkpoint.name

    def _drop_old(self, newest: str) -> None:
        """Keep the newest ones in the store; later ones are of a state that was found damaged.

        Once there are as many as are kept, nobody needs the earlier attempts any more.
        """
        kept = [step for step in attempts.whole(self.place) if step <= newest][-KEPT:]
        self.place.remove(*(n for n in self.place.list(CHECKPOINTS) if n.split("/")[1] not in kept))
        if len(kept) == KEPT and ATTEMPTS not in self.marks:
            for earlier in attempts.attempts(self.store, self.attempt):
                earlier.clear()
            self.marks[ATTEMPTS] = True


class Receiver(Mirror):
    """The end of the driver, which follows one attempt after the other, and may request a stop."""

    def __init__(self, store: ObjectStore, folder: Path, log: Log) -> None:
        super().__init__(store, folder, log)
        self.attempt = ""

    def follow(self, attempt: str) -> None:
        """Turn to the next attempt."""
        with self._busy:
            self.attempt, self.place, self.marks = attempt, attempts.of(self.store, attempt), {}

    def give_up(self) -> None:
        """Copy what can be copied at once, and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(AssayError):
            self.sync()

    def _sync(self) -> None:
        if not self.attempt:
            return
        if (self.folder / STOP).exists() and STOP not in self.marks:
            self.place.put(STOP, b"")
            self.marks[STOP] = True
        for name, entry in self.place.files().items():
            if name in (*SMALL, FAILURE):
                self._fetch(name, entry)
        for name, entry in self.place.list(PICTURES, after=str(self.marks.get(PICTURES, ""))).items():
            self._fetch(name, entry)
            self.marks[PICTURES] = name.rpartition("-")[0]  # more of the same step may follow
        if found := attempts.pieces(self.place):
            if SPOOL not in self.marks:
                attempts.drop_other_metrics(self.place, self.folder, found)
                self.marks[SPOOL] = True
            attempts.append_metrics(self.place, self.folder, found)

    def _fetch(self, name: str, entry: Entry) -> None:
        if self.marks.get(name) != entry:
            self.place.download(name, self.folder / name)
            self.marks[name] = entry

    def _last(self) -> None:
        """Copy the rest, and the newest checkpoint, whose weights are those of the run."""
        self.marks.pop(PICTURES, None)
        self.sync()
        if self.attempt:
            attempts.pull_checkpoints([self.place], self.folder, 1)


def _end_of_lines(path: Path, start: int) -> int:
    """Where the last whole line ends, of those from `start` on."""
    with path.open("rb") as file:
        file.seek(start)
        return start + file.read().rfind(b"\n") + 1


def _line(error: Exception) -> str:
    return str(error) if isinstance(error, AssayError) else f"{type(error).__name__}: {last_line(error)}"
