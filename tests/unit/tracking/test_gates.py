"""The gate opens for what is good enough and says why it stays shut."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.config.experiment import GateConfig
from assay.config.plugin import Headline
from assay.tracking.gates import Comparison, Decision, decide

ACCURACY, LOSS = Headline("accuracy"), Headline("loss", maximize=False)
GOOD = {"test/accuracy": 0.9, "test/loss": 0.3, "val/loss": 0.2}


def held(
    gate: Mapping[str, object] | None = None,
    metrics: Mapping[str, float] = GOOD,
    rival: Mapping[str, float] | None = None,
    missing: list[str] | None = None,
    headline: Headline = ACCURACY,
) -> Decision:
    comparison = None if rival is None else Comparison(metrics, rival)
    return decide(GateConfig.model_validate(gate or {}), headline, metrics, missing or [], comparison)


def test_the_first_with_a_complete_record_passes_and_says_what_was_looked_at() -> None:
    decision = held()
    assert decision.passed
    assert decision.reasons == ["provenance: complete"]


def test_what_provenance_lacks_is_named() -> None:
    decision = held(missing=["commit", "seed"])
    assert not decision.passed
    assert decision.reasons == ["provenance: lacks commit, seed"]


@pytest.mark.parametrize(
    ("gate", "passed", "reason"),
    [
        ({"min": {"test/accuracy": 0.9}}, True, "test/accuracy: 0.9000 >= 0.9"),
        ({"min": {"test/accuracy": 0.91}}, False, "test/accuracy: 0.9000 < 0.91"),
        ({"max": {"test/loss": 0.3}}, True, "test/loss: 0.3000 <= 0.3"),
        ({"max": {"val/loss": 0.1}}, False, "val/loss: 0.2000 > 0.1"),
        ({"min": {"test/recall": 0}}, False, "test/recall: not measured, but the gate requires it"),
        ({"max": {"test/recall": 1}}, False, "test/recall: not measured, but the gate requires it"),
    ],
)
def test_floors_and_ceilings(gate: Mapping[str, object], passed: bool, reason: str) -> None:
    decision = held(gate)
    assert decision.passed is passed
    assert reason in decision.reasons


def test_all_that_failed_is_told_and_only_that() -> None:
    gate = {"min": {"test/accuracy": 0.95, "val/loss": 0}, "max": {"test/loss": 0.1}}
    assert held(gate, missing=["seed"]).reasons == [
        "provenance: lacks seed", "test/accuracy: 0.9000 < 0.95", "test/loss: 0.3000 > 0.1",
    ]  # fmt: skip


@pytest.mark.parametrize("rival", [None, {"test/accuracy": 0.1}])
def test_a_headline_that_was_not_measured_fails(rival: Mapping[str, float] | None) -> None:
    decision = held(metrics={"val/accuracy": 1.0}, rival=rival)
    assert decision.reasons == ["test/accuracy: not measured; run `assay evaluate` first"]
    assert not decision.passed


@pytest.mark.parametrize(
    ("headline", "champion", "tolerance", "passed"),
    [
        (ACCURACY, 0.8, 0, True),
        (ACCURACY, 0.9, 0, True),
        (ACCURACY, 0.9001, 0, False),
        (ACCURACY, 0.95, 0.06, True),
        (ACCURACY, 0.95, 0.04, False),
        (LOSS, 0.4, 0, True),
        (LOSS, 0.3, 0, True),
        (LOSS, 0.2999, 0, False),
        (LOSS, 0.25, 0.06, True),
        (LOSS, 0.25, 0.04, False),
    ],
)
def test_the_champion(headline: Headline, champion: float, tolerance: float, passed: bool) -> None:
    name = f"test/{headline.metric}"
    decision = held({"tolerance": tolerance}, rival={name: champion}, headline=headline)
    assert decision.passed is passed
    expected = f"{name}: {GOOD[name]:.4f} against the champion's {champion:.4f}"
    assert decision.reasons[-1] == expected + (f" (tolerance {tolerance:g})" if tolerance else "")


@pytest.mark.parametrize(
    ("rival", "says"),
    [
        ({"test/other": 1.0}, "the champion has no test/accuracy"),
        ({"test/accuracy": math.nan}, "the champion has nan as its test/accuracy"),
    ],
)
def test_a_champion_without_the_headline_is_not_compared_and_that_is_said(
    rival: Mapping[str, float], says: str
) -> None:
    decision = held(rival=rival)
    assert decision.passed
    assert decision.notes == (f"not compared: {says}",)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rival", [None, {"test/accuracy": 0.5}, {"test/accuracy": -math.inf}])
@pytest.mark.parametrize("gate", [{}, {"min": {"test/accuracy": 0}}, {"max": {"test/accuracy": 1}}, {"tolerance": 9}])
def test_what_is_not_finite_never_passes(
    gate: Mapping[str, object], rival: Mapping[str, float] | None, value: float
) -> None:
    decision = held(gate, metrics={"test/accuracy": value}, rival=rival)
    assert not decision.passed
    assert f"test/accuracy: {value} is no finite number" in decision.reasons


VALUES = st.floats(0, 1)


@given(VALUES, VALUES, VALUES)
def test_better_never_fails_where_worse_passes(worse: float, champion: float, tolerance: float) -> None:
    def passes(value: float) -> bool:
        return held({"tolerance": tolerance}, {"test/accuracy": value}, {"test/accuracy": champion}).passed

    assert passes(champion)
    assert passes(max(worse, champion))
    assert not passes(worse) or passes((worse + 1) / 2)
