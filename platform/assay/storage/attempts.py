"""What the attempts at one run have left in object storage, each below a name of its own: `attempts/<name>/…`.

Names sort by time: the number of the process that held the run's lease, that of the try, and a random token. An attempt
begins with the newest state of those before it, so it is whole by itself, and they are removed once it has saved.
Nobody writes below another's name: a worker that was cut off disturbs no successor.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from assay.errors import Unavailable
from assay.storage.lease import ATTEMPTS
from assay.storage.object_store import ObjectStore
from assay.train.checkpoint import KEPT, MANIFEST
from assay.train.folder import ATTEMPT, CHECKPOINTS, LOG, PICTURES, SHIPPED, SPOOL, STARTS, STORED, SYNCED

PIECES = "spool"
"""Pieces of the metrics, each named after its offset."""
BEGUN = "begun"
"""Its presence says that rank 0 has begun, and that the store has the state from which."""


def attempt_name(lease: str, tried: int) -> str:
    """The name of the next attempt of the process with this lease, its `tried`-th from 1."""
    return f"{lease}-{tried:04d}-{secrets.token_hex(4)}"


def lease_name(number: int) -> str:
    """How names begin that the owner of a lease gives."""
    return f"{number:08d}"


def of(store: ObjectStore, attempt: str) -> ObjectStore:
    """The place of an attempt in that of its run."""
    return store.below(f"{ATTEMPTS}/{attempt}")


def attempts(store: ObjectStore, before: str = "~") -> list[ObjectStore]:
    """The places of all attempts, or of those before one, newest first."""
    return [of(store, name) for name in reversed(store.folders(ATTEMPTS)) if name < before]


def name_of(place: ObjectStore) -> str:
    return place.address.rpartition("/")[2]


def newest(store: ObjectStore, before: str = "~") -> ObjectStore | None:
    """The newest attempt that has left metrics or a checkpoint."""
    return next((place for place in attempts(store, before) if pieces(place) or whole(place)), None)


def is_past(store: ObjectStore, attempt: str) -> bool:
    """Whether nothing needs what an attempt has left on its node: the run is finished, or was saved by a later one."""
    names = store.folders(ATTEMPTS)
    return not names or any(whole(of(store, name)) for name in names if name > attempt)


# --- checkpoints ---


def whole(place: ObjectStore) -> list[str]:
    """The checkpoints of an attempt that have their manifest, oldest first."""
    return sorted(name.split("/")[1] for name in place.list(CHECKPOINTS) if name.endswith(f"/{MANIFEST}"))


def pull_checkpoints(places: list[ObjectStore], folder: Path, count: int = KEPT) -> None:
    """Fetch the newest whole checkpoints that are missing here, of the first places that have some.

    One that is newer than those of a later attempt was found damaged, as that one began before it.
    """
    found: list[str] = []
    for place in places:
        steps = [step for step in whole(place) if not found or step < found[-1]][::-1]
        for step in steps[: count - len(found)]:
            _fetch(place, step, folder)
            found.append(step)
        if len(found) == count:
            return


def _fetch(place: ObjectStore, step: str, folder: Path) -> None:
    target = folder / CHECKPOINTS / step
    if target.exists():
        return
    temporary = target.with_name(f".{step}.pull")
    shutil.rmtree(temporary, ignore_errors=True)  # what a kill has left
    for name in place.list(f"{CHECKPOINTS}/{step}"):
        place.download(name, temporary / Path(name).name)
    if not (temporary / MANIFEST).exists():
        raise Unavailable(f"{place.address}/{CHECKPOINTS}/{step} has disappeared")
    temporary.rename(target)


# --- metrics ---


def piece(start: int) -> str:
    return f"{PIECES}/{start:015d}"


def pieces(place: ObjectStore) -> dict[int, int]:
    """The pieces of an attempt's metrics: offset and size, in order. A later one may be contained in an earlier one."""
    found = place.list(PIECES)
    return {int(name.rpartition("/")[2]): found[name].size for name in sorted(found)}


def append_metrics(place: ObjectStore, folder: Path, found: Mapping[int, int]) -> int:
    """Append what is missing of the spool here; returns how long it is in the store."""
    path, size, end = folder / SPOOL, _size(folder / SPOOL), 0
    for start, length in found.items():
        end = max(end, start + length)
        if not start <= size < start + length:
            continue
        content = place.get(piece(start), size - start)
        if content is None:
            raise Unavailable(f"{place.address}/{piece(start)} has disappeared")
        with path.open("ab") as file:
            file.write(content)
        size += len(content)
    return end


def drop_other_metrics(place: ObjectStore, folder: Path, found: Mapping[int, int]) -> None:
    """Remove the spool here unless one of the two begins with the other."""
    path, at = folder / SPOOL, 0
    size = _size(path)
    while at < size and (start := max((s for s, n in found.items() if s <= at < s + n), default=None)) is not None:
        content = place.get(piece(start), at - start)
        if content is None:
            raise Unavailable(f"{place.address}/{piece(start)} has disappeared")
        with path.open("rb") as file:
            file.seek(at)
            here = file.read(len(content))
        if here != content[: len(here)]:
            forget_metrics(folder)
            return
        at += len(content)


def forget_metrics(folder: Path) -> None:
    for name in (SPOOL, SYNCED, SHIPPED):
        (folder / name).unlink(missing_ok=True)


def pull_metrics(store: ObjectStore, folder: Path) -> None:
    """Bring the newest metrics of a run here. Where it was trained, note how far the store has them."""
    for place in attempts(store):
        if found := pieces(place):
            drop_other_metrics(place, folder, found)
            stored = append_metrics(place, folder, found)
            if (folder / STORED).exists():
                (folder / STORED).write_text(str(stored))
            return


def pull_starts(store: ObjectStore, folder: Path, before: str = "~") -> None:
    """Fetch where the workers of earlier attempts began. The newest that has begun has all."""
    for place in attempts(store, before):
        if (content := place.get(STARTS)) is not None:
            (folder / STARTS).write_bytes(content)
            return


# --- all of it ---


def held_attempt(folder: Path) -> str:
    """The name of the attempt whose state a folder holds; empty if it is not noted, or the note is damaged."""
    with suppress(OSError, UnicodeDecodeError):
        noted = (folder / ATTEMPT).read_text()
        return noted if noted.isascii() and noted.isprintable() else ""
    return ""


def inherit(store: ObjectStore, attempt: str, folder: Path) -> bool:
    """Let an attempt begin with the newest state, in its folder: what is there, if nothing in the store is newer.

    Returns:
        Whether the store may lack some of it.
    """
    mark = folder / ATTEMPT  # says whose state the folder holds
    here = held_attempt(folder)
    source = newest(store, attempt)
    kept = source is None or name_of(source) <= here
    if not kept or not (folder / STORED).exists():
        (folder / STORED).write_text("0")  # until this attempt's own metrics are in the store
    if source is not None and not kept:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        found = pieces(source)
        drop_other_metrics(source, folder, found)
        append_metrics(source, folder, found)
        pull_checkpoints(attempts(store, attempt), folder)
        (folder / LOG).write_bytes(source.get(LOG) or b"")
        for name in source.list(PICTURES):
            source.download(name, folder / name)
    if not kept or not (folder / STARTS).exists():
        pull_starts(store, folder, attempt)
    mark.write_text(attempt)
    return kept


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
