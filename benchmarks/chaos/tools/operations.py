"""What `calls` stops in the middle: each replaces an old state by a new one, in a process of its own."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OLD, NEW = b"experiments: {}\n", b"experiments: {a: 1}\n"
POINTS = 3


@dataclass(frozen=True)
class Replacement:
    """Something that is replaced as a whole.

    Attributes:
        before: makes the old state in an empty folder.
        change: the name of the function here that replaces it.
        state: what a later command finds: a number that never goes back, 0 the old state; None if it is neither.
    """

    name: str
    before: Callable[[Path], None]
    change: str
    state: Callable[[Path], int | None]


# --- a checkpoint ---


def _save(folder: Path, step: int) -> None:
    import torch

    from assay.train.checkpoint import Checkpoints

    state = {"weights": {"a": torch.full((64, 64), float(step))}, "position": {"step": step}}
    Checkpoints(folder / "checkpoints", print).save(step, state)


def checkpoint_before(folder: Path) -> None:
    _save(folder, 1)
    _save(folder, 2)


def checkpoint(folder: Path) -> None:
    _save(folder, 3)


def checkpoint_state(folder: Path) -> int | None:
    from assay.train.checkpoint import Checkpoints

    warnings: list[str] = []
    found = Checkpoints(folder / "checkpoints", warnings.append).load()
    if found is None or warnings:
        return None
    step, state = found
    whole = bool((state["weights"]["a"] == step).all()) and state["position"]["step"] == step
    return step - 2 if whole and step in (2, 3) else None


# --- a spool and a journal: each line is old or new ---


def spool_before(folder: Path) -> None:
    from assay.train.spool import Spool

    spool = Spool(folder / "spool")
    spool.append(0, {"train/loss": 1.0})
    spool.close()


def spool(folder: Path) -> None:
    from assay.train.spool import Spool

    opened = Spool(folder / "spool")
    for step in range(1, POINTS + 1):
        opened.append(step, {"train/loss": float(step), "val/loss": 0.5})
        opened.sync()
    opened.close()


def spool_state(folder: Path) -> int | None:
    """A resumed training appends the rest; then all points are there once."""
    from assay.train.spool import read_spool

    there = [record.step for record, _ in read_spool(folder / "spool", 0)]
    spool(folder)
    steps = [record.step for record, _ in read_spool(folder / "spool", 0)]
    return len(there) - 1 if steps == list(range(POINTS + 1)) else None


def journal_before(folder: Path) -> None:
    from assay.tune.journal import Journal

    opened = Journal(folder / "journal.jsonl")
    opened.append("search", name="s")
    opened.close()


def journal(folder: Path) -> None:
    from assay.tune.journal import Journal

    opened = Journal(folder / "journal.jsonl")
    for trial in range(POINTS):
        opened.append("end", trial=trial, metrics={"val/loss": 0.5})
        opened.sync()
    opened.close()


def journal_state(folder: Path) -> int | None:
    from assay.tune.journal import Journal

    opened = Journal(folder / "journal.jsonl")
    opened.close()
    trials = [event.get("trial") for event in opened.events]
    return len(trials) - 1 if trials == [None, *range(len(trials) - 1)] else None


# --- params.yaml, a dataset's folder, the alias of a model ---


def params_before(folder: Path) -> None:
    (folder / "params.yaml").write_bytes(OLD)


def params(folder: Path) -> None:
    from assay.files import write_atomic

    write_atomic(folder / "params.yaml", NEW)


def params_state(folder: Path) -> int | None:
    return {OLD: 0, NEW: 1}.get((folder / "params.yaml").read_bytes())


def _fill(folder: Path, content: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b", "c"):
        (folder / name).write_text(content)


def swap_before(folder: Path) -> None:
    _fill(folder / "data/pets", "old")


def swap(folder: Path) -> None:
    from assay.files import new_folder, swapped

    target = folder / "data/pets"
    with new_folder(target) as fresh:
        _fill(fresh, "new")
        with swapped(fresh, target):
            pass


def swap_state(folder: Path) -> int | None:
    """What the next command finds, which first puts in order what this one left; nothing else may stay."""
    from assay.files import clear_leftovers

    target = folder / "data/pets"
    clear_leftovers(target.parent)
    if not target.is_dir() or [path.name for path in target.parent.iterdir()] != ["pets"]:
        return None
    found = {path.name: path.read_text() for path in target.iterdir()}
    return (
        {"old": 0, "new": 1}[found["a"]] if found in [dict.fromkeys("abc", word) for word in ("old", "new")] else None
    )


def _registry(folder: Path) -> Any:
    import logging

    import mlflow

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def alias_before(folder: Path) -> None:
    client = _registry(folder)
    client.create_registered_model("m")
    for _ in range(2):
        client.create_model_version("m", (folder / "model").as_uri())
    client.set_registered_model_alias("m", "champion", "1")


def alias(folder: Path) -> None:
    _registry(folder).set_registered_model_alias("m", "champion", "2")


def alias_state(folder: Path) -> int | None:
    """Read from the tables: MLflow would keep the file open that was there before."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        found = store.execute("SELECT version FROM registered_model_aliases WHERE alias = 'champion'").fetchall()
    return {"[(1,)]": 0, "[(2,)]": 1}.get(str(found))


ALL = (
    Replacement("checkpoint", checkpoint_before, "checkpoint", checkpoint_state),
    Replacement("spool", spool_before, "spool", spool_state),
    Replacement("journal", journal_before, "journal", journal_state),
    Replacement("params", params_before, "params", params_state),
    Replacement("dataset", swap_before, "swap", swap_state),
    Replacement("alias", alias_before, "alias", alias_state),
)

if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
