"""Random numbers are functions of their counters: the same everywhere, and independent of each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.train.randomness import Draw, bits, key, permutation

SEEDS = st.integers(0, 2**31 - 1)
KEY = 17291698654735934399
BITS = [
    16294208416658607535,
    12035550249420947055,
    5095610196844313600,
]  # the first is SplitMix64's published first output for the seed 0
ORDER = [7, 4, 9, 6, 0, 1, 3, 5, 8, 2]
UNIFORM = [[0.40727557589487107, 0.7576272558942653], [0.6650968144005188, 0.6897196763456309]]
NORMAL = [[0.42384251902350567, 1.0727239175475396], [-0.6833241540030702, -1.017125859836464]]


def draw(indices: list[int] | np.ndarray, seed: int = 3, epoch: int = 1) -> Draw:
    return Draw(seed, epoch, np.asarray(indices, dtype=np.int64))


def test_golden_values() -> None:
    """A change of these changes every run that anybody has made: it needs a new major version."""
    assert key(0, "order", 1) == KEY
    assert bits(0, np.arange(3)).tolist() == BITS
    assert permutation(key(0, "order", 0), 10).tolist() == ORDER
    assert draw([0, 7]).uniform("affine", 2).tolist() == UNIFORM
    np.testing.assert_allclose(draw([0, 7]).normal("noise", 2), NORMAL, rtol=1e-14)


def test_keys_tell_numbers_from_names_and_mind_the_order() -> None:
    parts: list[tuple[int | str, ...]] = [(1,), ("1",), (1, 2), (12,), (2, 1), ("a", "b"), ("ab",), ("a", "", "b")]
    assert len({key(*p) for p in parts}) == len(parts)
    assert all(0 <= key(*p) < 2**64 for p in parts)


@given(SEEDS, st.integers(0, 50), st.lists(st.integers(0, 2**40), min_size=1, max_size=20, unique=True), st.data())
def test_a_row_depends_on_its_sample_alone(seed: int, epoch: int, indices: list[int], data: st.DataObject) -> None:
    whole = draw(indices, seed, epoch)
    rows = data.draw(st.permutations(range(len(indices))))[: data.draw(st.integers(1, len(indices)))]
    part = draw([indices[r] for r in rows], seed, epoch)
    for count in (1, 5):
        assert np.array_equal(part.uniform("a", count), whole.uniform("a", count)[rows])
        assert np.array_equal(part.normal("a", count), whole.normal("a", count)[rows])


@given(SEEDS, st.integers(0, 300))
def test_a_permutation_is_one(seed: int, length: int) -> None:
    order = permutation(seed, length)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(length))


def test_permutations_are_uniform() -> None:
    counts = np.zeros((5, 5))
    for epoch in range(4000):
        counts[permutation(key(1, "order", epoch), 5), np.arange(5)] += 1
    assert np.abs(counts / 4000 - 0.2).max() < 0.03  # 4.7 standard deviations


@pytest.mark.parametrize("change", ["seed", "epoch", "purpose", "index"])
def test_what_a_draw_depends_on_gives_unrelated_numbers(change: str) -> None:
    n = 40_000
    one = draw(np.arange(n)).uniform("a")[:, 0]
    other = {
        "seed": draw(np.arange(n), seed=4).uniform("a")[:, 0],
        "epoch": draw(np.arange(n), epoch=2).uniform("a")[:, 0],
        "purpose": draw(np.arange(n)).uniform("b")[:, 0],
        "index": draw(np.arange(1, n + 1)).uniform("a")[:, 0],
    }[change]
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(n)
    assert not np.array_equal(one, other)


def test_uniform_numbers_are_uniform_and_columns_are_independent() -> None:
    values = draw(np.arange(40_000)).uniform("a", 3)
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values[:, 0], bins=20, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 45  # chi-square, 19 degrees: p < 0.001 above 43.8
    assert np.abs(values.mean(0) - 0.5).max() < 5 * np.sqrt(1 / 12 / 40_000)
    assert np.abs(np.corrcoef(values.T) - np.eye(3)).max() < 5 / np.sqrt(40_000)


def test_normal_numbers_are_normal() -> None:
    values = draw(np.arange(40_000)).normal("a", 2)
    assert np.isfinite(values).all()
    assert np.abs(values.mean(0)).max() < 0.025
    assert np.abs(values.std(0) - 1).max() < 0.02
    assert abs((np.abs(values) < 1.96).mean() - 0.95) < 0.005
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.025
