"""What a search has found: the front, tables, and its progress."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from assay.report.search import TrialRow, front, line, live, ranked, short, spark, summary, table_csv
from tests.unit.report.searches import optuna_search

STATUSES = ("finished", "stopped", "failed", "over", "running")


def rows(points: list[tuple[float, ...]], statuses: list[str]) -> list[TrialRow]:
    return [
        TrialRow(number, status, {}, {f"m{i}": v for i, v in enumerate(point)}, [], 1.0, 1)
        for number, (point, status) in enumerate(zip(points, statuses, strict=False))
    ]


@st.composite
def searches(draw: st.DrawFn) -> tuple[list[TrialRow], dict[str, str]]:
    count = draw(st.integers(1, 4))
    value = st.one_of(st.integers(0, 3).map(float), st.floats(allow_subnormal=False))  # few values: ties and equals
    points = draw(st.lists(st.tuples(*[value] * count), max_size=25))
    statuses = draw(st.lists(st.sampled_from(("finished", *STATUSES)), min_size=len(points), max_size=len(points)))
    return rows(points, statuses), {f"m{i}": draw(st.sampled_from(("max", "min"))) for i in range(count)}


def slow_front(trials: list[TrialRow], objectives: dict[str, str]) -> set[int]:
    """The definition, word for word."""
    scored = [t for t in trials if t.status == "finished" and all(math.isfinite(t.metrics[m]) for m in objectives)]

    def as_good(a: TrialRow, b: TrialRow) -> bool:
        return all(
            a.metrics[m] >= b.metrics[m] if way == "max" else a.metrics[m] <= b.metrics[m]
            for m, way in objectives.items()
        )

    def beaten(t: TrialRow) -> bool:
        return any(as_good(o, t) and (not as_good(t, o) or o.number < t.number) for o in scored)

    return {t.number for t in scored if not beaten(t)}


@given(searches())
def test_the_front_is_what_no_other_dominates(search: tuple[list[TrialRow], dict[str, str]]) -> None:
    trials, objectives = search
    found = front(trials, objectives)
    assert {t.number for t in found} == slow_front(trials, objectives)
    firsts = [t.metrics["m0"] for t in found]
    assert firsts == sorted(firsts, reverse=objectives["m0"] == "max")
    assert front(list(reversed(trials)), objectives) == found
    if len(objectives) == 1:
        assert found == ranked(trials, objectives)[:1]


def test_a_trial_without_a_number_is_not_on_the_front() -> None:
    trials = rows([(math.nan,), (math.inf,), (0.5,)], ["finished"] * 3)
    trials.append(TrialRow(3, "finished", {}, {}, [], 1.0, 1))
    assert [t.number for t in front(trials, {"m0": "max"})] == [2]


def test_short_names_stay_apart() -> None:
    keys = ["optimizer.lr", "task.stages.0.width", "task.stages.1.width", "task.head.width", "task.kernels.2"]
    assert list(short(keys).values()) == ["lr", "stages.0.width", "stages.1.width", "head.width", "kernels.2"]


def test_a_summary_has_the_best_and_what_they_differ_in() -> None:
    snapshot = optuna_search(40)
    found = summary(snapshot)
    scores = [t.metrics["val/accuracy"] for t in snapshot.trials if t.status == "finished"]
    assert [row["val/accuracy"] for row in found] == sorted(scores, reverse=True)[:5]
    assert "cost/parameters" in found[0]
    for key in snapshot.parameters:
        assert (key in found[0]) == (len({str(snapshot.trials[row["trial"]].values.get(key)) for row in found}) > 1)


def test_a_summary_of_several_objectives_is_the_front() -> None:
    snapshot = optuna_search(60, 2, sampler="random")
    found = summary(snapshot)
    assert [row["trial"] for row in found] == [t.number for t in front(snapshot.trials, snapshot.objectives)]
    assert len(found) > 2
    absent = [row for row in found if "optimizer.momentum" not in snapshot.trials[row["trial"]].values]
    assert absent
    assert all(row["optimizer.momentum"] == "n/a" for row in absent)


def test_a_csv_holds_all_trials_in_full() -> None:
    snapshot = optuna_search(20)
    snapshot = replace(
        snapshot, trials=[replace(snapshot.trials[0], reason='said "no",\nthen died'), *snapshot.trials[1:]]
    )
    read = list(csv.DictReader(io.StringIO(table_csv(snapshot).decode(), newline="")))
    assert [int(row["number"]) for row in read] == list(range(20))
    assert read[0]["reason"] == 'said "no",\nthen died'
    for row, trial in zip(read, snapshot.trials, strict=True):
        assert float(row["optimizer.lr"]) == trial.values["optimizer.lr"]
        assert row["task.blocks"] == str(trial.values["task.blocks"])
        assert row["data.flip"] == str(trial.values["data.flip"]).lower()
        assert (row["optimizer.momentum"] == "") == ("optimizer.momentum" not in trial.values)
        assert (row["val/accuracy"] == "") == (trial.status == "failed")


def test_a_line_tells_how_a_search_stands() -> None:
    snapshot = optuna_search(12, failing=0)
    trials = [
        *snapshot.trials[:9],
        replace(snapshot.trials[9], status="failed"),
        replace(snapshot.trials[10], status="running"),
    ]
    best = max(trials[:9], key=lambda t: t.metrics["val/accuracy"])
    snapshot = replace(snapshot, trials=trials, details={"total": "12", "time left": "0:00:30"})
    score = f"{best.metrics['val/accuracy']:.4g}"
    assert line(snapshot) == (
        f"digits-hpo: 10 of 12 trials done, 1 failed, 1 running, best val/accuracy {score} (trial {best.number}), "
        "0:00:30 left"
    )


@pytest.mark.parametrize("width", [60, 100, 200])
def test_the_live_view_shows_the_best_and_the_running(width: int) -> None:
    snapshot = optuna_search(30, failing=0)
    odd = replace(snapshot.trials[29], status="running", metrics={}, values={"optimizer.name": "[red]x[/nonsense]"})
    snapshot = replace(snapshot, trials=[*snapshot.trials[:29], odd])
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(live(snapshot))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for trial in ranked(snapshot.trials, snapshot.objectives)[:5]:
        assert f"{trial.metrics['val/accuracy']:.4g}" in shown
    assert width < 100 or "[red]x[/nonsense]" in shown
    assert len(shown.splitlines()) <= 12


def test_nothing_yet_is_no_error() -> None:
    empty = replace(optuna_search(1), trials=[])
    assert summary(empty) == []
    assert line(empty) == "digits-hpo: 0 of 1 trials done"
    assert len(table_csv(empty).splitlines()) == 1


def test_a_curve_in_a_line() -> None:
    assert spark([0.0, 0.5, 1.0]) == "▁▅█"
    assert spark([3.0, 3.0]) == "▁▁"
    assert spark([]) == ""
    assert spark([float("nan"), 1.0, 2.0]) == "▁█"
    assert len(spark(list(range(40)))) == 12
