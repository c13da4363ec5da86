"""Every algorithm: the same calls give the same proposals, no point twice, and each finds what it is for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.config.search import SAMPLERS
from assay.errors import InputError
from assay.fronts import crowding, order
from assay.tune.algorithms import Setting, population
from assay.tune.coding import Coding
from assay.tune.journal import Journal
from assay.tune.search import Search, Trial
from assay.tune.space import Space, identity
from tests.support.searching import COUNTED, MIXED, TABLE, config, drive, score, search

OURS = ("grid", "evolution", "local_search")
WITHOUT_CHOICES = [name for name in SAMPLERS if name != "grid"]


def plain_of(name: str) -> dict[str, Any]:
    return COUNTED if name == "grid" else MIXED


def made(name: str, seed: int = 0, **more: Any) -> Search:
    return search(config(name, plain_of(name), seed=seed, population=4, interval=10, **more))


def points(trials: list[Trial]) -> list[str]:
    return [identity(trial.values) for trial in trials]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_calls_give_the_same_trials_and_another_seed_others(name: str) -> None:
    first, second, other = made(name), made(name), made(name, seed=1)
    for each in (first, second, other):
        drive(each, 25, order=3)
    assert points(first.trials) == points(second.trials)
    assert points(first.trials) != points(other.trials)


@pytest.mark.parametrize("name", SAMPLERS)
@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 40), st.integers(1, 3))
def test_an_interrupted_search_goes_on_as_if_nothing_had_been(name: str, order: int, steps: int, parallel: int) -> None:
    whole, chosen = made(name), config(name, plain_of(name), population=4, interval=10)
    drive(whole, steps, order, parallel)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "search" / "journal.jsonl"
        journal = Journal(path)
        drive(search(chosen, journal=journal), steps, order, parallel)
        journal.close()
        journal = Journal(path)
        resumed = search(chosen, journal=journal)
        journal.close()
    assert points(resumed.trials) == points(whole.trials)
    assert [trial.status.replace("running", "waiting") for trial in whole.trials] == [t.status for t in resumed.trials]
    resumed._journal = None
    assert list(map(identity, resumed.suggestions(4))) == list(map(identity, whole.suggestions(4)))


@pytest.mark.parametrize("name", WITHOUT_CHOICES)
def test_proposals_are_points_of_the_space(name: str) -> None:
    begun = made(name)
    drive(begun, 40)
    coding = Coding(begun.space)
    for trial in begun.trials:
        assert coding.own(trial.values) is not None, trial.values
        assert coding.decode(coding.encode(trial.values)).keys() == trial.values.keys()  # nothing that does not count


@pytest.mark.parametrize("name", OURS)
def test_ours_propose_no_point_twice_by_themselves(name: str) -> None:
    machine, seen = search(config(name, TABLE, population=4)).algorithm, set[str]()
    for ticket in range(200):
        proposal = machine.ask(ticket)
        assert proposal is not None
        seen.add(identity(proposal.values))
        machine.tell(ticket, (score(proposal.values),))
    assert len(seen) == 200


@pytest.mark.parametrize("name", [*OURS, "random", "tpe"])
def test_every_point_is_tried_once_and_then_there_is_an_end(name: str) -> None:
    small = {"kind": COUNTED["kind"], "decay": COUNTED["decay"], "deep": COUNTED["deep"]}
    begun = search(config(name, small, population=4))
    drive(begun, 100)
    assert begun.space.size == 5 * 7
    assert len(set(points(begun.trials))) == len(begun.trials) == 35
    assert begun.finished == "every configuration of the space was tried"


def test_a_grid_spreads_early_and_refuses_what_it_cannot_count() -> None:
    begun = search(config("grid", {f"p{i}": {"choice": list(range(10))} for i in range(3)}))
    early = drive(begun, 60)
    for key in ("p0", "p1", "p2"):
        assert len({trial.values[key] for trial in early}) == 10
    with pytest.raises(InputError, match=r"^space.rate: a grid needs countable values.*list its values as a choice$"):
        search(config("grid", {"rate": MIXED["rate"]}))
    with pytest.raises(InputError, match=r"^space.a: .*give it a step, or list a choice$"):
        search(config("grid", {"a": {"uniform": [0, 1]}}))
    with pytest.raises(InputError, match="a grid of more than 1,000,000 points"):
        search(config("grid", {"a": {"integer": [0, 2_000_000]}}))


def first_best(name: str, seed: int) -> int:
    begun = search(config(name, TABLE, seed=seed, population=10))
    top = sum((place + 1) * np.log1p(3) for place in range(5))
    for _ in range(400):
        trial = begun.next()
        assert trial is not None
        begun.end(trial.number, "finished", {"val/accuracy": score(trial.values)})
        if score(trial.values) >= top - 1e-9:
            return trial.number + 1
    return 400


def test_local_search_finds_the_best_of_1024_far_earlier_than_random() -> None:
    ours = [first_best("local_search", seed) for seed in range(4)]
    assert max(ours) <= 40
    assert np.mean([first_best("evolution", seed) for seed in range(4)]) < 200
    assert np.mean([first_best("random", seed) for seed in range(4)]) > 5 * np.mean(ours)


def area(name: str, seed: int) -> float:
    """What the front covers after 100 trials; a letter costs its square, so all letters alike are the best."""

    def value(trial: Trial) -> dict[str, float]:
        letters = ["abcd".index(v) for v in trial.values.values()]
        return {"val/accuracy": float(sum(letters)), "cost/parameters": float(sum(n * n for n in letters))}

    aims = {"val/accuracy": "max", "cost/parameters": "min"}
    begun = search(config(name, TABLE, objectives=aims, population=20, seed=seed))
    drive(begun, 100, parallel=3, value=value)
    least: dict[float, float] = {}
    for trial in begun.trials:
        if trial.status == "finished":
            got, cost = trial.metrics["val/accuracy"], trial.metrics["cost/parameters"]
            least[got] = min(cost, least.get(got, 46.0))
    return sum(46.0 - min([cost for got, cost in least.items() if got >= total] or [46.0]) for total in range(1, 16))


def test_several_objectives_find_a_front() -> None:
    found = {name: np.mean([area(name, seed) for seed in range(2)]) for name in ("local_search", "evolution", "random")}
    whole = sum(46 - _least(n) for n in range(1, 16))
    assert found["local_search"] > 0.93 * whole
    assert found["evolution"] > found["random"]


def _least(total: int) -> int:
    """The least cost of letters that sum up to at least so much: all as alike as can be."""
    low, more = divmod(total, 5)
    return (5 - more) * low**2 + more * (low + 1) ** 2


@pytest.mark.parametrize("name", ["local_search", "evolution"])
def test_the_experiment_as_it_is_comes_first(name: str) -> None:
    own = {"train.epochs": {"choice": [7, 30]}, "optimizer.lr": {"loguniform": [1e-4, 1e-1]}}
    trial = search(config(name, own), epochs=30).next()
    assert trial is not None
    assert trial.values["train.epochs"] == 30


def test_all_failing_or_over_does_not_stop_proposals() -> None:
    for name in WITHOUT_CHOICES:
        begun = made(name)
        for _ in range(30):
            trial = begun.next()
            assert trial is not None, name
            begun.end(trial.number, "over", reason="too large")


def test_the_tournament_takes_the_front_and_the_less_crowded() -> None:
    scores = np.array([[0.0, 4.0], [1.0, 1.0], [2.0, 2.0], [2.1, 1.9], [4.0, 0.0]])
    assert order(scores)[0] in (0, 4)
    assert order(scores[1:4])[0] in (1, 2)
    assert crowding(scores[[0, 2, 3, 4]]).tolist() == [np.inf, 2.1 / 4 + 2.1 / 4, 2.0 / 4 + 2.0 / 4, np.inf]
    assert order(np.array([[1.0], [3.0], [2.0]])) == [1, 2, 0]


def test_members_explore_by_a_tenth_of_each_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(population, "RESAMPLED", 0.0)
    plain = {
        "rate": {"loguniform": [1e-4, 1e-1]}, "decay": {"uniform": [0, 1]}, "size": {"integer": [1, 31]},
        "steps": {"loginteger": [1, 100]}, "kind": {"choice": ["a", "b"]}, "some": {"choice": [1, 2, 4]},
    }  # fmt: skip
    chosen = config("pbt", plain)
    setting = Setting(chosen, Space(chosen.space), 10, 1, {})
    near = {"rate": 1e-3, "decay": 0.5, "size": 16, "steps": 10, "kind": "a", "some": 2}
    moved = [population.explored(setting, near, np.random.default_rng(seed)) for seed in range(40)]
    seen = {name: {round(values[name], 6) if name != "kind" else "a" for values in moved} for name in plain}
    assert seen == {
        "rate": {0.001995, 0.000501}, "decay": {0.4, 0.6}, "size": {13, 19}, "steps": {6, 17}, "kind": {"a"},
        "some": {1, 4},
    }  # fmt: skip
    assert {values["kind"] for values in moved} == {"a"}
    ends = {"rate": 1e-1, "decay": 1.0, "size": 31, "steps": 100, "kind": "b", "some": 4}
    for seed in range(20):
        values = population.explored(setting, ends, np.random.default_rng(seed))
        assert all(parameter.holds(values[parameter.key]) for parameter in setting.space.parameters)
