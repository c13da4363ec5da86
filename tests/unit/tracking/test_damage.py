"""Flipped bits and cut files: each is found or harmless, and no figure is another one afterwards."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from assay.errors import InputError
from assay.settings import Settings
from assay.tracking.curves import read_curves
from assay.tracking.recorder import ship
from assay.tracking.tracker import Point, Tracker
from assay.train.folder import SHIPPED, SPOOL, SYNCED
from assay.train.spool import Spool
from assay.tune.journal import Journal, read_journal

STEPS = 40
NAMES = ("train/loss", "val/accuracy")


class Store(Tracker):
    """Keeps one of equal points, as MLflow's SQL store does."""

    def __init__(self, path: Path) -> None:
        super().__init__(Settings(project=path))
        self.points: set[Point] = set()

    def log_points(self, run_id: str, points: list[Point]) -> None:  # type: ignore[override]
        self.points.update(points)

    def history(self, run_id: str) -> list[Point]:
        return sorted(self.points)


def value(name: str, step: int) -> float:
    return (step + 1) / (7 if name == "train/loss" else 11)


def train(folder: Path, first: int, end: int) -> None:
    spool = Spool(folder / SPOOL)
    for step in range(first, end):
        spool.append(step, {name: value(name, step) for name in NAMES})
    spool.sync()
    spool.close()


def damage(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        for _ in range(chance.choice([1, 1, 1, 3])):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    else:
        del content[chance.randrange(len(content)) :]
    path.write_bytes(content)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", [SPOOL, SHIPPED, SYNCED])
def test_no_point_is_another_twice_or_lost_in_silence(tmp_path: Path, seed: int, name: str) -> None:
    chance = random.Random(f"{seed} {name}")
    for case in range(10):
        folder, store, said = tmp_path / str(case), Store(tmp_path), list[str]()
        sent = chance.randrange(1, STEPS // 2)
        train(folder, 0, sent)
        ship(store, "r", folder)
        train(folder, sent, STEPS // 2)
        if chance.random() < 0.7:  # else it was killed before that
            ship(store, "r", folder)
            sent = STEPS // 2
        damage(folder / name, chance)
        checkpoint = chance.randrange(STEPS // 2)
        train(folder, checkpoint, STEPS)
        ship(store, "r", folder, said.append)
        found = {(point[0], point[3]): point[1] for point in store.points}
        assert len(found) == len(store.points), "twice"
        assert all(found[name, step] == value(name, step) for name, step in found)
        whole = {(name, step) for name in NAMES for step in range(STEPS)}
        missing = {step for _, step in whole - set(found)}
        assert not missing or (name == SPOOL and said), "lost in silence"
        assert all(sent <= step < STEPS // 2 for step in missing), "lost what was sent, or what came after"
        curves = read_curves(folder, lambda store=store: store.history("r"))  # type: ignore[misc]
        assert {(name, step): v for name, points in curves.items() for step, v in points} == found
        shutil.rmtree(folder)


@pytest.mark.parametrize("seed", range(10))
def test_a_journal_is_refused_or_begins_as_it_was(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for number in range(12):
        journal.append("end", trial=number, metrics={"val/accuracy": chance.random()})
    journal.close()
    events, _ = read_journal(path)
    whole = path.read_bytes()
    for _ in range(10):
        path.write_bytes(whole)
        damage(path, chance)
        refused = ""
        try:
            found, _ = read_journal(path)
        except InputError as error:
            refused = str(error)
        if refused:
            assert f"{path}: line " in refused
        else:
            assert found == events[: len(found)]
            assert len(path.read_bytes()) < len(whole) or len(found) == len(events) - 1  # cut, or its last end flipped
