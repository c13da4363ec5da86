"""How far the tracking store has a run's spool, noted next to it; and whether the spool has lost points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from assay.files import write_atomic
from assay.sealed import sealed, unsealed
from assay.train.folder import SHIPPED, SPOOL
from assay.train.spool import damaged_lines


@dataclass(frozen=True)
class Shipped:
    """The note.

    Attributes:
        offset: behind the last line that was sent.
        damaged: whether the spool has lost points that the store may have.
    """

    offset: int = 0
    damaged: bool = False

    def write(self, folder: Path) -> None:
        write_atomic(folder / SHIPPED, sealed({"offset": self.offset, "damaged": self.damaged}))


def read_shipped(folder: Path) -> Shipped | None:
    """The note in a run's folder: None if it cannot be read, or does not fit the spool."""
    try:
        note = unsealed((folder / SHIPPED).read_bytes())
    except FileNotFoundError:
        return Shipped()
    if note is None:
        return None
    offset = note["offset"]
    with (folder / SPOOL).open("rb") as file:
        file.seek(max(offset - 1, 0))
        fits = offset == 0 or file.read(1) == b"\n"
    return Shipped(offset, note["damaged"]) if fits else None


def has_lost_points(folder: Path) -> bool:
    """Whether the store may have points of the run that its spool has no more."""
    if not (folder / SPOOL).exists():
        return True
    noted = read_shipped(folder)
    return noted is None or noted.damaged or damaged_lines(folder / SPOOL) > 0
