"""A metric of a step is kept once, whatever is killed, and wherever the file is torn."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.train.spool import Spool, damaged_lines, read_spool

Rows = list[tuple[int, dict[str, float]]]


def contents(path: Path, offset: int = 0) -> Rows:
    return [(record.step, dict(record.metrics)) for record, _ in read_spool(path, offset)]


def fill(path: Path, rows: Rows) -> None:
    spool = Spool(path)
    for step, metrics in rows:
        spool.append(step, metrics)
    spool.sync()
    spool.close()


ROWS: Rows = [(1, {"train/loss": 0.5}), (1, {"val/loss": 0.25, "val/accuracy": 1 / 3}), (2, {"train/loss": 1e-300})]


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "spool.jsonl"
    fill(path, ROWS)
    assert contents(path) == ROWS
    times = [record.time for record, _ in read_spool(path, 0)]
    assert times == sorted(times)
    assert times[0] > 1.6e12  # milliseconds


def test_offsets_lead_behind_each_line(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    fill(path, ROWS)
    ends = [end for _, end in read_spool(path, 0)]
    assert ends[-1] == path.stat().st_size
    assert [contents(path, end) for end in ends] == [ROWS[1:], ROWS[2:], []]


def test_it_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.jsonl")
    for number, (step, metrics) in enumerate(ROWS, 1):
        spool.append(step, metrics)
        assert contents(tmp_path / "spool.jsonl") == ROWS[:number]
    spool.close()


def test_a_metric_of_a_step_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    fill(path, [(5, {"a": 1.0}), (5, {"a": 2.0}), (5, {"a": 3.0, "b": 4.0}), (4, {"a": 9.0}), (6, {"a": 5.0}), (6, {})])
    assert contents(path) == [(5, {"a": 1.0}), (5, {"b": 4.0}), (6, {"a": 5.0})]
    fill(path, [(6, {"a": 9.0, "b": 7.0}), (7, {"a": 8.0})])
    assert contents(path)[3:] == [(6, {"b": 7.0}), (7, {"a": 8.0})]


@pytest.mark.parametrize("damage", [b'{"step": 3', b"\0\0\0\0", b'{"step":3,"crc32":"00000000"}'])
def test_a_torn_end_is_not_given_and_is_cut_off(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "spool.jsonl"
    fill(path, ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole + damage)
    assert contents(path) == ROWS
    assert damaged_lines(path) == 0
    fill(path, [])
    assert path.read_bytes() == whole
    fill(path, [(3, {"train/loss": 7.0})])
    assert contents(path) == [*ROWS, (3, {"train/loss": 7.0})]


@pytest.mark.parametrize(
    "damage", [b"\n", b"[1]\n", b'{"step": 1, "time": 1, "metrics": {"train/loss": 9}}\n', b"\xff\n"]
)
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_damaged_line_costs_itself_alone(tmp_path: Path, damage: bytes, at: int) -> None:
    """The third is what an earlier Assay wrote."""
    path = tmp_path / "spool.jsonl"
    fill(path, ROWS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:at], damage, *lines[at:]]))
    assert contents(path) == ROWS
    assert damaged_lines(path) == 1
    fill(path, [(1, {"train/loss": 9.0}), (3, {"train/loss": 7.0})])  # what it has is not written again
    assert contents(path) == [*ROWS, (3, {"train/loss": 7.0})]


METRICS = st.dictionaries(
    st.sampled_from(["train/loss", "val/loss", "é/🙂", 'a"b\n']), st.floats(allow_nan=False), min_size=1
)


@given(st.lists(st.tuples(st.integers(0, 2), METRICS), max_size=6), st.data())
def test_a_file_cut_at_any_byte_and_a_replay_give_the_original(
    jumps: list[tuple[int, dict[str, float]]], data: st.DataObject
) -> None:
    step, rows = 0, []
    for jump, metrics in jumps:
        step += jump
        rows.append((step, metrics))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool.jsonl"
        fill(path, rows)
        original = contents(path)
        size = path.stat().st_size
        cut = data.draw(st.integers(0, size))
        with path.open("r+b") as file:
            file.truncate(cut)
        kept = contents(path)
        assert kept == original[: len(kept)]
        # A run goes on from a checkpoint that is not younger than what was synced, and computes the same again.
        since = data.draw(st.sampled_from([0, *(s for s, _ in kept)]))
        fill(path, [(s, metrics) for s, metrics in rows if s >= since])
        again = contents(path)
    flat = [{(s, name): value for s, m in found for name, value in m.items()} for found in (again, original)]
    assert flat[0] == flat[1]
    assert sum(len(m) for _, m in again) == len(flat[0])


def test_infinity_survives(tmp_path: Path) -> None:
    fill(tmp_path / "s", [(1, {"a": math.inf, "b": math.nan})])
    ((_, metrics),) = contents(tmp_path / "s")
    assert metrics["a"] == math.inf
    assert math.isnan(metrics["b"])


@pytest.mark.parametrize("left", [0, 1, 60, None])
def test_who_reads_on_from_an_offset_misses_nothing_after_somebody_cut_or_removed_it(
    tmp_path: Path, left: int | None
) -> None:
    path = tmp_path / "spool.jsonl"
    spool = Spool(path)
    for step in range(3):
        spool.append(step, {"a": float(step)})
    read = path.stat().st_size
    spool.append(3, {"a": 3.0})
    path.unlink() if left is None else os.truncate(path, left)
    for step in range(4, 9):
        spool.append(step, {"a": float(step)})
    spool.sync()
    assert contents(path, read) == [(step, {"a": float(step)}) for step in range(4, 9)]
    assert damaged_lines(path) == 2
    spool.close()
    fill(path, [(9, {"a": 9.0})])
    assert contents(path)[-6:] == [(step, {"a": float(step)}) for step in range(4, 10)]
