"""Spaces: what is refused, and the rows that algorithms move in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.config.search import SearchConfig
from assay.errors import InputError
from assay.tune.coding import Coding, names
from assay.tune.space import bound, identity
from tests.support.searching import COUNTED, EXPERIMENT, MIXED, TABLE, space


@pytest.mark.parametrize(
    ("plain", "line"),
    [
        ({"a": {"choice": [1, 2], "when": {"b": 1}}}, "s.a.when.b: unknown searched key 'b'"),
        (
            {"a": {"choice": [1], "when": {"b": 1}}, "b": {"choice": [1], "when": {"a": 1}}},
            "s: the conditions of a, b depend on each other",
        ),
        (
            {"a": {"choice": [1]}, "b": {"choice": [1], "when": {"a": 7}}},
            "s.b.when.a: a is never 7; it is one of 1",
        ),
        (
            {"a": {"uniform": [0, 1]}, "b": {"choice": [1], "when": {"a": 0.5}}},
            "s.b.when.a: a is a continuous range; a condition needs a choice or whole numbers",
        ),
        ({"a": {"choice": [16, 32, 16]}}, "s.a: choice lists 16 twice: remove one"),
        ({"a": {"uniform": [0, 1], "step": 1e-7}}, "s.a: a step of 1e-07 leads to 10,000,001 values: use a larger"),
    ],
)
def test_a_contradiction_is_one_line(plain: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as caught:
        space(plain, "s")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"optimizer.lrr": {"uniform": [0, 1]}}, "optimizer.lrr"),
        ({"optimizer.lr": {"uniform": [-1, 1]}}, "optimizer.lr"),
        ({"seed": {"choice": [1, "x"]}}, "seed"),
        (
            {
                "seed": {"choice": [1, 2]},
                "train.epochs": {"choice": [1, 2], "when": {"seed": 1}},
                "optimizer.lr": {"uniform": [0.1, 1], "when": {"train.epochs": 1, "seed": 2}},
            },
            "params.yaml: searches.x.space.optimizer.lr.when: these conditions never hold together",
        ),
    ],
)
def test_a_space_is_checked_against_its_experiment(plain: dict[str, Any], words: str) -> None:
    chosen = SearchConfig.model_validate({"experiment": "digits", "space": plain, "budget": {"trials": 1}})
    with pytest.raises(InputError) as caught:
        bound("x", chosen, EXPERIMENT)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_conditions_that_hold_only_at_a_later_value_are_found() -> None:
    plain = {
        "seed": {"choice": [1, 2]},
        "train.epochs": {"choice": [1, 2], "when": {"seed": 2}},
        "optimizer.lr": {"uniform": [0.1, 1], "when": {"train.epochs": 1, "seed": [1, 2]}},
    }
    chosen = SearchConfig.model_validate({"experiment": "digits", "space": plain, "budget": {"trials": 1}})
    assert bound("x", chosen, EXPERIMENT)[0].by_key.keys() == plain.keys()


def test_the_size_counts_conditions_and_ends_at_a_million() -> None:
    counted = space(COUNTED)
    assert counted.size == len({identity(point) for point in counted.points()}) == 30 * 5 * (1 + 3 + 3)
    assert space(MIXED).size is None
    assert space({"a": {"integer": [0, 2**31 - 2]}}).size is None  # and is not listed to find out
    assert space({f"p{i}": {"choice": [0, 1]} for i in range(20)}).size is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rows_are_points_and_neighbours_change_one_parameter(seed: int) -> None:
    coding, random = Coding(space(MIXED)), np.random.default_rng(seed)
    for row in coding.sample(5, random):
        values = coding.decode(row)
        assert values == dict(coding.space.complete(values, random))  # exactly what counts
        assert names(coding.encode(values)[None]) == names(row[None])
        assert coding.own(values) is not None
        for moved in coding.neighbours(row, random):
            other = coding.decode(moved)
            assert coding.own(other) is not None  # within the space
            assert other == dict(coding.space.complete(other, random))
            shared = [key for key in values.keys() & other.keys() if values[key] != other[key]]
            assert len(shared) == 1
            if values.keys() != other.keys():
                assert shared[0] in ("kind", "deep")
        assert names(coding.mutated(row, random)[None]) != names(row[None])


def test_a_spread_shares_the_values_out() -> None:
    coding = Coding(space(TABLE))
    rows = coding.spread(12, np.random.default_rng(0))
    for column in rows.T:
        assert np.bincount(column.astype(int)).tolist() == [3, 3, 3, 3]


def test_fresh_finds_the_last_point_and_then_none() -> None:
    coding, random = Coding(space(COUNTED)), np.random.default_rng(0)
    rows = np.array([coding.encode(point) for point in coding.space.points()])
    tried = set(names(rows[:-1]))
    found = coding.fresh(tried, random)
    assert found is not None
    assert coding.decode(found) == coding.decode(rows[-1])
    assert coding.fresh(tried | set(names(rows[-1:])), random) is None


def test_what_is_no_point_is_not_its_own() -> None:
    coding = Coding(space(MIXED))
    whole = {"kind": "a", "size": 3, "rate": 0.01, "steps": 7, "decay": 0.5}
    assert coding.own(whole) is not None
    assert coding.own({**whole, "deep": 3}) is not None  # it does not count there
    wrong = [{"kind": "b"}, {"size": 31}, {"rate": 0.2}, {"steps": 0}, {"steps": 7.5}, {"decay": 0.3}, {"rate": None}]
    for change in wrong:
        assert coding.own({**whole, **change}) is None, change
