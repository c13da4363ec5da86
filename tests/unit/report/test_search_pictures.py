"""Pictures of searches open, show what they should, and are left out where there is nothing to show."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from assay.report.search import SearchStory
from assay.report.search_page import pictures
from assay.report.search_parameters import importance, importances, parallel_coordinates
from assay.report.search_pictures import _members, bounds, lineage, progress, rungs
from tests.unit.report.stories import population, story

STORIES = {
    "few": story(6, failing=0),
    "many": story(40, 2),
    "stopping": story(64, stops=True, sampler="random"),
    "three objectives": story(60, 3, "random", more=3),
    "population": population(),
    "failed": story(5, failing=1.1),
    "none": replace(story(1), trials=[]),
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
@pytest.mark.parametrize("name", STORIES)
def test_each_story_has_its_pictures(name: str) -> None:
    drawn = pictures(STORIES[name])
    assert set(drawn) == SHOWN[name]
    assert all(opened(picture).std() > 5 for picture in drawn.values())


def test_the_same_story_makes_the_same_bytes() -> None:
    assert pictures(STORIES["few"]) == pictures(STORIES["few"])


@pytest.mark.filterwarnings("error")
def test_no_number_and_no_curve_break_a_picture() -> None:
    """Values that are not finite, one trial alone, trials all alike, keys with dollars."""
    told = STORIES["few"]
    first = told.trials[0]
    metrics = {"val/accuracy": float("nan")}
    odd = replace(first, metrics=metrics, curve=[(1, float("nan")), (2, float("inf"))])
    alike = [replace(first, number=n) for n in range(9)]
    renamed = replace(
        told, parameters={"$_{$": {"choices": ["$x", [1] * 90]}}, trials=[replace(first, values={"$_{$": "$x"})]
    )
    for trials in ([odd], [odd, *told.trials[1:]], [first], alike):
        pictures(replace(told, trials=trials))
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
    told = STORIES["few"]
    stopped = replace(told, trials=[replace(t, status="stopped") for t in told.trials])
    for draw in (progress, rungs, parallel_coordinates):
        assert red(draw(told)) > 300
        assert red(draw(stopped)) < 30


def test_importance_names_what_matters() -> None:
    shares = importances(story(120, sampler="random", failing=0))
    assert next(iter(shares)) == "optimizer.lr"
    assert sum(share for share, _ in shares.values()) == pytest.approx(1)
    assert shares["optimizer.lr"][0] > 2 * shares["optimizer.lr"][1]
    assert all(shares[key][0] < 0.05 for key in ("data.flip", "train.batch_size"))  # the function ignores them
    assert set(shares) == set(STORIES["few"].parameters)  # also the conditional one


def scored(told: SearchStory, scores: list[float]) -> SearchStory:
    trials = [replace(t, metrics={"val/accuracy": s}) for t, s in zip(told.trials, scores, strict=True)]
    return replace(told, trials=trials)


def test_importance_is_silent_where_it_knows_nothing() -> None:
    told = story(12, failing=0)
    assert importance(told) is not None
    assert importance(scored(told, [0.5] * 12)) is None
    assert importance(replace(told, trials=told.trials[:7])) is None
    assert importance(replace(told, trials=[replace(t, values=told.trials[0].values) for t in told.trials])) is None


def test_importance_of_noise_is_within_chance() -> None:
    told = story(60, sampler="random", failing=0)
    random = np.random.default_rng(1)
    beyond = []
    for _ in range(5):
        shares = importances(scored(told, list(random.random(60))))
        beyond += [share > chance for share, chance in shares.values()]
    assert np.mean(beyond) < 0.25


def test_importance_takes_the_better_end() -> None:
    """Good trials have a narrow range of one key; which end is good follows from the objective."""
    told = story(60, sampler="random", failing=0)
    rates = [t.values["optimizer.lr"] for t in told.trials]
    score = [1.0 if 1e-3 < rate < 1e-2 else 0.1 for rate in rates]
    most = importances(scored(told, score))["optimizer.lr"][0]
    least = importances(replace(scored(told, score), objectives={"val/accuracy": "min"}))["optimizer.lr"][0]
    assert most > 0.5 > least


def test_stopped_trials_rank_behind_finished_ones() -> None:
    """Trials that a scheduler stopped have importance told although few have finished."""
    told = STORIES["stopping"]
    assert told.count("finished") < 8
    assert next(iter(importances(told))) == "optimizer.lr"


def test_members_go_on_in_their_lines() -> None:
    told = population(members=6, generations=5)
    places = _members({t.number: t for t in told.trials})
    assert len(set(places.values())) == len(told.trials)
    for trial in told.trials:
        assert places[trial.number][0] == trial.number // 6
        before = None if trial.parent is None else told.trials[trial.parent]
        if before and dict(before.values) == dict(trial.values):
            assert places[trial.number][1] == places[before.number][1]


def test_a_line_of_descent_is_drawn_in_red() -> None:
    told = population()
    orphans = replace(told, trials=[replace(t, parent=None) for t in told.trials])
    assert red(lineage(told)) > 300
    assert lineage(orphans) is None
