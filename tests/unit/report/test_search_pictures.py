"""Pictures of searches open, show what they should, and are left out if there is nothing to show."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from assay.report.search import SearchSnapshot
from assay.report.search_page import pictures
from assay.report.search_parameters import importance, importances, parallel_coordinates
from assay.report.search_pictures import _members, bounds, lineage, progress, rungs
from tests.unit.report.searches import optuna_search, population

SEARCHES = {
    "few": optuna_search(6, failing=0),
    "many": optuna_search(40, 2),
    "stopping": optuna_search(64, stops=True, sampler="random"),
    "three objectives": optuna_search(60, 3, "random", more=3),
    "population": population(),
    "failed": optuna_search(5, failing=1.1),
    "none": replace(optuna_search(1), trials=[]),
}
ALWAYS = {"progress", "rungs", "parallel_coordinates"}
SHOWN = {
    "few": ALWAYS,
    "many": ALWAYS | {"importance", "front"},
    "stopping": ALWAYS | {"importance"},
    "three objectives": ALWAYS | {"importance", "front"},
    "population": ALWAYS | {"lineage"},
    "failed": {"progress"},
    "none": set(),
}


def opened(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SEARCHES)
def test_each_search_has_its_pictures(name: str) -> None:
    drawn = pictures(SEARCHES[name])
    assert set(drawn) == SHOWN[name]
    assert all(opened(picture).std() > 5 for picture in drawn.values())


def test_the_same_search_makes_the_same_bytes() -> None:
    assert pictures(SEARCHES["few"]) == pictures(SEARCHES["few"])


@pytest.mark.filterwarnings("error")
def test_no_number_and_no_curve_break_a_picture() -> None:
    """Values that are not finite, one trial alone, trials all alike, keys with dollars."""
    snapshot = SEARCHES["few"]
    first = snapshot.trials[0]
    metrics = {"val/accuracy": float("nan")}
    odd = replace(first, metrics=metrics, curve=[(1, float("nan")), (2, float("inf"))])
    alike = [replace(first, number=n) for n in range(9)]
    renamed = replace(
        snapshot, parameters={"$_{$": {"choices": ["$x", [1] * 90]}}, trials=[replace(first, values={"$_{$": "$x"})]
    )
    for trials in ([odd], [odd, *snapshot.trials[1:]], [first], alike):
        pictures(replace(snapshot, trials=trials))
    pictures(renamed)


def test_the_axis_shows_the_better_ones() -> None:
    low, high = bounds([0.99, 0.98, 0.97, 0.96, 0.95, 0.1], "max")
    assert high == 0.99
    assert 0.9 < low < 0.95
    low, high = bounds([0.1, 0.2, 0.3, 0.25, 0.15, 1e9], "min")
    assert low == 0.1
    assert high < 1
    assert bounds([0.99, 0.98, 0.97, 0.96, 0.1], "max", always=[0.2])[0] == 0.2
    low, high = bounds([0.5, 0.5], "max")
    assert low < 0.5 < high


def red(picture: bytes | None) -> int:
    assert picture is not None
    pixels = opened(picture)
    return int(((pixels - (209, 73, 91)).__abs__().sum(-1) < 12).sum())


def test_the_best_stands_out() -> None:
    """Without a finished trial, nothing is drawn in the colour of the best."""
    snapshot = SEARCHES["few"]
    stopped = replace(snapshot, trials=[replace(t, status="stopped") for t in snapshot.trials])
    for draw in (progress, rungs, parallel_coordinates):
        assert red(draw(snapshot)) > 300
        assert red(draw(stopped)) < 30


def test_importance_names_what_matters() -> None:
    shares = importances(optuna_search(120, sampler="random", failing=0))
    assert next(iter(shares)) == "optimizer.lr"
    assert sum(share for share, _ in shares.values()) == pytest.approx(1)
    assert shares["optimizer.lr"][0] > 2 * shares["optimizer.lr"][1]
    assert all(shares[key][0] < 0.05 for key in ("data.flip", "train.batch_size"))  # the function ignores them
    assert set(shares) == set(SEARCHES["few"].parameters)  # also the conditional one


def scored(snapshot: SearchSnapshot, scores: list[float]) -> SearchSnapshot:
    trials = [replace(t, metrics={"val/accuracy": s}) for t, s in zip(snapshot.trials, scores, strict=True)]
    return replace(snapshot, trials=trials)


def test_importance_is_silent_where_it_knows_nothing() -> None:
    snapshot = optuna_search(12, failing=0)
    assert importance(snapshot) is not None
    assert importance(scored(snapshot, [0.5] * 12)) is None
    assert importance(replace(snapshot, trials=snapshot.trials[:7])) is None
    alike = [replace(t, values=snapshot.trials[0].values) for t in snapshot.trials]
    assert importance(replace(snapshot, trials=alike)) is None


def test_importance_of_noise_is_within_chance() -> None:
    snapshot = optuna_search(60, sampler="random", failing=0)
    random = np.random.default_rng(1)
    beyond = []
    for _ in range(5):
        shares = importances(scored(snapshot, list(random.random(60))))
        beyond += [share > chance for share, chance in shares.values()]
    assert np.mean(beyond) < 0.25


def test_importance_takes_the_better_end() -> None:
    """Good trials have a narrow range of one key; which end is good follows from the objective."""
    snapshot = optuna_search(60, sampler="random", failing=0)
    rates = [t.values["optimizer.lr"] for t in snapshot.trials]
    score = [1.0 if 1e-3 < rate < 1e-2 else 0.1 for rate in rates]
    most = importances(scored(snapshot, score))["optimizer.lr"][0]
    least = importances(replace(scored(snapshot, score), objectives={"val/accuracy": "min"}))["optimizer.lr"][0]
    assert most > 0.5 > least


def test_stopped_trials_rank_behind_finished_ones() -> None:
    """Trials that a scheduler stopped count for importance if few have finished."""
    snapshot = SEARCHES["stopping"]
    assert snapshot.count("finished") < 8
    assert next(iter(importances(snapshot))) == "optimizer.lr"


def test_members_go_on_in_their_lines() -> None:
    snapshot = population(members=6, generations=5)
    places = _members({t.number: t for t in snapshot.trials})
    assert len(set(places.values())) == len(snapshot.trials)
    for trial in snapshot.trials:
        assert places[trial.number][0] == trial.number // 6
        before = None if trial.parent is None else snapshot.trials[trial.parent]
        if before and dict(before.values) == dict(trial.values):
            assert places[trial.number][1] == places[before.number][1]


def test_a_line_of_descent_is_drawn_in_red() -> None:
    snapshot = population()
    orphans = replace(snapshot, trials=[replace(t, parent=None) for t in snapshot.trials])
    assert red(lineage(snapshot)) > 300
    assert lineage(orphans) is None
