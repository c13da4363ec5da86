"""Which trainings and searches use a cluster, noted in their folders: who ends the cluster asks them to save first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from assay.errors import InputError
from assay.files import read_json, write_json
from assay.owner import Owner

JOINED = "cluster.json"
"""In the folder of a run: the Ray that it uses, and its process."""


@contextmanager
def join_noted(folder: Path, address: str | None) -> Iterator[None]:
    """Note for the length of a block that this process works there; without an address, nothing."""
    if address is None:
        yield
        return
    write_json(folder / JOINED, {"address": address, "owner": Owner.here().plain()})
    try:
        yield
    finally:
        (folder / JOINED).unlink(missing_ok=True)


def joined(runs: Path, address: str | None) -> dict[str, int]:
    """The living processes of this machine that use the Ray at an address, by the id of their run."""
    found = {}
    for note in runs.glob(f"*/{JOINED}"):
        with suppress(OSError, InputError):  # it has just ended, or the note is damaged
            plain = read_json(note, "")
            owner = Owner.read(plain.get("owner"))
            if plain.get("address") == address and owner is not None and owner.life == "alive":
                found[note.parent.name] = owner.pid
    return found
