"""Means are sums over counts, over all steps, batches and workers, and never means of means."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import WorkError
from assay.train.context import LocalContext
from assay.train.metrics import Sums, Window, check_finite
from tests.support.ranks import Group, ThreadContext

CPU = torch.device("cpu")
ALONE = LocalContext(Path("unused"), CPU, 1)
VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8)


def test_a_window_gives_means_and_starts_afresh() -> None:
    window = Window(CPU)
    assert window.take(ALONE) == {}
    for value in (1.0, 2.0, 6.0):
        window.add({"loss": torch.tensor(value, requires_grad=True), "half": torch.tensor(value / 2).bfloat16()})
    assert window.take(ALONE) == {"loss": 3.0, "half": 1.5}
    assert window.take(ALONE) == {}
    window.add({"loss": torch.tensor(8.0)})
    assert window.take(ALONE) == {"loss": 8.0}


def test_a_window_sums_in_double() -> None:
    window = Window(CPU)
    for _ in range(1000):
        window.add({"loss": torch.tensor(0.1)})
    assert window.take(ALONE)["loss"] == pytest.approx(torch.tensor(0.1).item(), rel=1e-14)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("saved_after", [0, 1, 2, 4])
def test_a_window_that_is_saved_and_restored_gives_the_same_means(tmp_path: Path, world: int, saved_after: int) -> None:
    rows = [[rank + 10.0 * step for rank in range(world)] for step in range(4)]
    expected = sum(map(sum, rows)) / (4 * world)
    group = Group(world)

    def body(rank: int) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
        context = ThreadContext(tmp_path, group, rank)
        window = Window(CPU)
        for row in rows[:saved_after]:
            window.add({"loss": torch.tensor(row[rank]), "other": torch.tensor(1.0)})
        folded = window.fold(context)
        state = window.state()
        assert state.get("sum/loss", 0) == (sum(map(sum, rows[:saved_after])) if rank == 0 else 0)
        resumed = Window(CPU)
        resumed.restore(written := group_state(group, rank, state), rank)
        assert written["count"] == saved_after
        for row in rows[saved_after:]:
            for each in (window, resumed):
                each.add({"loss": torch.tensor(row[rank]), "other": torch.tensor(1.0)})
        return folded, window.take(context), resumed.take(context)

    for folded, without, resumed in group.run(body):
        assert without == resumed == {"loss": expected, "other": 1.0}
        total = sum(map(sum, rows[:saved_after]))
        assert folded == ({"loss": total, "other": float(saved_after * world)} if saved_after else {})


def group_state(group: Group, rank: int, state: dict[str, float | int]) -> dict[str, float | int]:
    """What rank 0 has, for every rank: the others read its checkpoint."""
    names = list(state)
    mine = torch.tensor([float(state[name]) if rank == 0 else 0.0 for name in names], dtype=torch.float64)
    total = ThreadContext(Path("unused"), group, rank).all_reduce(mine)
    return dict(zip(names, total.tolist(), strict=True))


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_means_of_unequal_batches_are_exact(batches: list[list[float]]) -> None:
    sums = Sums()
    for batch in batches:
        values = torch.tensor(batch, dtype=torch.float64)
        sums.add("a", values.sum(), len(batch))
        sums.add("b", values.sum(), torch.tensor(len(batch)))
    means, counts = sums.reduce(ALONE)
    flat = [value for batch in batches for value in batch]
    assert means["a"] == pytest.approx(math.fsum(flat) / len(flat), rel=1e-9, abs=1e-6)
    assert means["b"] == means["a"]
    assert counts == {}


def test_means_and_tables_are_over_all_workers(tmp_path: Path) -> None:
    shares = [[1.0, 2.0, 3.0], [10.0], [4.0, 4.0]]
    group = Group(3)

    def body(rank: int) -> tuple[dict[str, float], list[list[int]]]:
        sums = Sums()
        for value in shares[rank]:
            sums.add("loss", torch.tensor(value), 1)
            sums.add_counts("table", torch.tensor([[1, 0], [rank, 0]]))
        means, counts = sums.reduce(ThreadContext(tmp_path, group, rank))
        assert counts["table"].dtype == torch.int64
        return means, counts["table"].tolist()

    assert group.run(body) == [({"loss": 4.0}, [[6, 0], [5, 0]])] * 3


def test_nothing_added_gives_nothing() -> None:
    assert Sums().reduce(ALONE) == ({}, {})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_run_that_diverged_is_stopped_with_advice(value: float) -> None:
    check_finite({"train/loss": 1e300, "x": -0.0}, 3)
    with pytest.raises(WorkError, match=r"train/loss became .* step 7.*optimizer\.lr") as caught:
        check_finite({"val/loss": 1.0, "train/loss": value}, 7)
    assert caught.value.exit_code == 1
