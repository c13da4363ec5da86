"""A run's folder in object storage, through which rank 0 on one node and the driver on another exchange files.

Needed only if the nodes share no folder. Then each worker has a folder on its own node. Rank 0's is copied to the
store while it trains: the metrics in pieces, each named by its offset; a checkpoint file by file, its manifest last,
so that it is read only when it is whole. The driver pulls the same files into its own folder.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from assay.errors import AssayError, Unavailable
from assay.log import Log
from assay.storage.object_store import Entry, ObjectStore
from assay.train.checkpoint import KEPT, MANIFEST
from assay.train.folder import CHECKPOINTS, FAILURE, LOG, OUTCOME, PICTURES, SPOOL, STEPS, STOP

SECONDS = 2.0
"""Between two synchronizations."""
SMALL = (STEPS, LOG, OUTCOME)
PIECES = "spool"


class Mirror(ABC):
    """One end: a folder here, and the run's place in the store. A thread keeps them in step until `close`.

    A store that does not answer is logged once and retried; if files are still missing at the end, it is an error.
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
        """Copy what is new, now. Raises `AssayError` if the store does not answer."""
        with self._busy:
            self._sync()

    def close(self) -> None:
        """Copy the rest, and end. Raises `AssayError` if the store does not answer."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.sync()

    def _run(self) -> None:
        logged = False
        while not self._stop.wait(SECONDS):
            try:
                self.sync()
                logged = False
            except AssayError as error:
                if not logged:
                    self.log(f"{error}; trying again")
                logged = True

    @abstractmethod
    def _sync(self) -> None:
        """Copy what is new; called by one thread at a time."""


@contextmanager
def sending(address: str, folder: Path, log: Log, writer: bool = True) -> Iterator[None]:
    """Let a worker begin with the files in the store, and copy its own there. Without an address: do nothing."""
    if not address:
        yield
        return
    sender = Sender(ObjectStore(address), folder, log, writer)
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
    finally:
        receiver.close()


class Sender(Mirror):
    """The end of rank 0, the `writer`. Those of other ranks send only their failure."""

    def __init__(self, store: ObjectStore, folder: Path, log: Log, writer: bool) -> None:
        super().__init__(store, folder, log)
        self.writer = writer
        self.sent = 0  # bytes of the spool

    def begin(self) -> None:
        """Take over the newest checkpoints and the metrics of earlier attempts."""
        pull_checkpoints(self.store, self.folder)
        pull_metrics(self.store, self.folder)
        (self.folder / LOG).write_bytes(self.store.get(LOG) or b"")
        spool = self.folder / SPOOL
        self.sent = spool.stat().st_size if spool.exists() else 0

    def _sync(self) -> None:
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
        if self.store.get(STOP) is not None:
            (self.folder / STOP).touch()

    def _send(self, name: str) -> None:
        path = self.folder / name
        with suppress(FileNotFoundError):
            status = path.stat()
            mark = (status.st_size, status.st_mtime_ns)
            if self.marks.get(name) != mark:
                self.store.put(name, path.read_bytes())
                self.marks[name] = mark

    def _send_metrics(self) -> None:
        path = self.folder / SPOOL
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self.sent)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if whole:
            self.store.put(f"{PIECES}/{self.sent:015d}", whole)
            self.sent += len(whole)

    def _send_checkpoints(self) -> None:
        """Send the newest one, unless the store has it. If it is removed here meanwhile, a newer one follows."""
        here = sorted((self.folder / CHECKPOINTS).glob("step-*"))
        if not here or here[-1].name == self.marks.get(CHECKPOINTS):
            return
        newest = here[-1]
        with suppress(FileNotFoundError):
            files = [path for path in sorted(newest.iterdir()) if path.name != MANIFEST]
            for path in [*files, newest / MANIFEST]:
                self.store.upload(f"{CHECKPOINTS}/{newest.name}/{path.name}", path)
            self.marks[CHECKPOINTS] = newest.name
            self._drop_old()

    def _drop_old(self) -> None:
        """Keep the newest ones in the store; later ones are of an attempt that had to start further back."""
        names = list(self.store.list(CHECKPOINTS))
        newest = str(self.marks[CHECKPOINTS])
        kept = [step for step in _whole(names) if step <= newest][-KEPT:]
        self.store.remove(*(name for name in names if name.split("/")[1] not in kept))


class Receiver(Mirror):
    """The end of the driver, which follows the run and may request a stop."""

    def _sync(self) -> None:
        if (self.folder / STOP).exists() and STOP not in self.marks:
            self.store.put(STOP, b"")
            self.marks[STOP] = True
        names = self.store.list()
        for name, entry in names.items():
            wanted = name in (*SMALL, FAILURE) or name.startswith(f"{PICTURES}/")
            if wanted and self.marks.get(name) != entry:
                self.store.download(name, self.folder / name)
                self.marks[name] = entry
        pull_metrics(self.store, self.folder, names)

    def close(self) -> None:
        """Copy the rest, and the newest checkpoint, whose weights are those of the run."""
        super().close()
        pull_checkpoints(self.store, self.folder, 1)


def pull_checkpoints(store: ObjectStore, folder: Path, count: int = KEPT) -> None:
    """Fetch the newest whole checkpoints that are missing here."""
    names = list(store.list(CHECKPOINTS))
    for step in _whole(names)[-count:]:
        target = folder / CHECKPOINTS / step
        if target.exists():
            continue
        temporary = target.with_name(f".{step}.pull")
        for name in (name for name in names if name.split("/")[1] == step):
            store.download(name, temporary / Path(name).name)
        temporary.rename(target)


def pull_metrics(store: ObjectStore, folder: Path, names: Mapping[str, Entry] | None = None) -> None:
    """Append what is missing of the spool. A piece that was sent twice may be longer the second time.

    Args:
        names: the files in the store, if they are known.
    """
    path = folder / SPOOL
    size = path.stat().st_size if path.exists() else 0
    for name, entry in sorted((store.list(PIECES) if names is None else names).items()):
        if not name.startswith(f"{PIECES}/"):
            continue
        start = int(name.rpartition("/")[2])
        if not start <= size < start + entry.size:
            continue
        content = store.get(name)
        if content is None:
            raise Unavailable(f"{store.address}/{name} has disappeared")
        with path.open("ab") as file:
            file.write(content[size - start :])
        size = start + len(content)


def _whole(names: list[str]) -> list[str]:
    """The checkpoints that have their manifest, oldest first."""
    return sorted(name.split("/")[1] for name in names if name.endswith(f"/{MANIFEST}"))
