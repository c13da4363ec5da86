"""The state machine of a search: budgets, ends, deaths, stops, its journal; and the lineage of a population."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import InputError, WorkError
from assay.tune.journal import Journal, read_journal
from assay.tune.search import FAILURES_IN_A_ROW, LIVES, OVER_IN_A_ROW, SAME_AGAIN, Search
from assay.tune.space import identity
from tests.support.searching import COUNTED, TABLE, config, drive, score, search

ACCURACY = "val/accuracy"


def random_search(**more: Any) -> Search:
    return search(config("random", TABLE, **more))


def finish(begun: Search, number: int, value: float = 0.5) -> None:
    begun.end(number, "finished", {ACCURACY: value})


def test_a_budget_of_trials_counts_failures_and_not_what_was_over() -> None:
    begun = random_search(budget={"trials": 6})
    for status in ("finished", "failed", "over", "stopped", "over"):
        trial = begun.next()
        assert trial is not None
        begun.end(trial.number, status, {ACCURACY: 0.5} if status in ("finished", "stopped") else {})
    running = [begun.next() for _ in range(4)]
    assert [trial is None for trial in running] == [False, False, False, True]
    assert begun.finished == "budget of 6 trials"
    begun.end(running[0].number, "over")  # type: ignore[union-attr]
    assert begun.next() is not None  # it made room again


def test_a_budget_of_epochs_counts_what_was_reported() -> None:
    begun = random_search(budget={"epochs": 5})
    first, second = begun.next(), begun.next()
    assert first is not None
    assert second is not None
    for epoch in range(4):
        begun.report(first.number, epoch, {ACCURACY: 0.1})
    begun.report(first.number, 3, {ACCURACY: 0.1})  # again, after a death: not heard
    begun.report(second.number, 1, {ACCURACY: 0.1})
    assert begun.epochs_trained == 4
    assert begun.finished is None
    begun.report(second.number, 2, {ACCURACY: 0.1})
    assert begun.finished == "budget of 5 epochs"


def test_failures_in_a_row_end_it_with_the_last_reason() -> None:
    begun = random_search()
    for number in range(2 * FAILURES_IN_A_ROW - 1):
        trial = begun.next()
        assert trial is not None
        if number == FAILURES_IN_A_ROW - 1:
            finish(begun, trial.number)
        else:
            begun.end(trial.number, "failed", reason=f"reason {number}")
    trial = begun.next()
    assert trial is not None
    begun.end(trial.number, "failed", reason="no memory")
    assert begun.finished == f"{FAILURES_IN_A_ROW} trials in a row failed; the last: no memory"
    assert begun.next() is None


def test_only_networks_over_the_limits_end_it() -> None:
    begun = random_search(limits={"cost/parameters": 10})
    for _ in range(OVER_IN_A_ROW):
        trial = begun.next()
        assert trial is not None
        assert begun.report(trial.number, 0, {"cost/parameters": 11})
        begun.end(trial.number, "over")
    assert begun.next() is None
    assert begun.finished is not None
    assert "cost/parameters 11 is over the limit of 10" in begun.finished
    assert begun.counted == []


def test_a_dead_worker_is_tried_again_and_then_fails(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "s" / "journal.jsonl")
    begun = search(config("random", TABLE), journal=journal)
    trial = begun.next()
    assert trial is not None
    for _ in range(LIVES - 1):
        assert begun.died(trial.number, "killed")
        assert begun.next() is trial
    journal.close()
    journal = Journal(tmp_path / "s" / "journal.jsonl")
    resumed = search(config("random", TABLE), journal=journal)
    again = resumed.next()
    assert again is not None
    assert (again.number, again.deaths) == (trial.number, LIVES - 1)
    assert not resumed.died(again.number, "killed")
    assert (again.status, again.reason) == (
        "failed",
        f"its worker died {LIVES} times without progress; the last time: killed",
    )
    journal.close()


def test_a_configuration_is_not_tried_twice() -> None:
    begun = search(config("tpe", {"a": {"choice": list(range(12))}, "b": {"choice": [0, 1]}}))
    ended = drive(begun, 100, parallel=2)
    assert len({identity(trial.values) for trial in ended}) == len(ended) == 24
    assert SAME_AGAIN < 24  # so that it ran out of suggestions of its own at least once


@pytest.mark.parametrize("name", ["tpe", "nsga2", "evolution", "local_search"])
def test_a_score_that_is_no_number_is_as_a_failure(name: str) -> None:
    infinite, failed = search(config(name, TABLE, population=4)), search(config(name, TABLE, population=4))
    for number in range(40):
        trial, twin = infinite.next(), failed.next()
        assert trial is not None
        assert twin is not None
        assert trial.values == twin.values
        if number % 3:
            finish(infinite, trial.number, score(trial.values))
            finish(failed, trial.number, score(trial.values))
        else:
            finish(infinite, trial.number, [float("nan"), float("inf"), -float("inf")][number % 9 // 3])
            failed.end(twin.number, "failed")


def test_deaths_of_a_trial_count_since_its_last_progress(tmp_path: Path) -> None:
    """Also for the search that continues from the journal, and from one of before deaths said how far the trial was."""
    journal = Journal(tmp_path / "s" / "journal.jsonl")
    begun = search(config("random", TABLE), journal=journal)
    trial = begun.next()
    assert trial is not None
    for reached in range(1, 3 * LIVES):
        assert begun.died(trial.number, "killed", reached)
        assert begun.next() is trial
    assert begun.died(trial.number, "killed", 3 * LIVES - 1)
    journal.close()
    (again,) = search(config("random", TABLE), journal=(journal := Journal(journal.path))).trials
    assert (again.deaths, again.reached) == (trial.deaths, trial.reached) == (2, 3 * LIVES - 1)
    journal.close()

    old = Journal(tmp_path / "old" / "journal.jsonl")
    trial = search(config("random", TABLE), journal=old).next()
    assert trial is not None
    for _ in range(LIVES):
        old.append("death", trial=trial.number, reason="killed")
    old.append("end", trial=trial.number, status="failed", metrics={}, reason="it died", seconds=0, facts={})
    old.close()
    (again,) = search(config("random", TABLE), journal=(old := Journal(old.path))).trials
    assert (again.deaths, again.status) == (LIVES, "failed")
    old.close()


def test_a_release_waits_and_is_the_next() -> None:
    begun = random_search()
    first, second = begun.next(), begun.next()
    assert first is not None
    assert second is not None
    begun.release(first.number)
    assert begun.running == [second]
    assert begun.next() is first


def test_asha_stops_the_worse_at_rungs() -> None:
    begun = search(config("asha", TABLE, reduction=2), epochs=8)
    assert begun.milestones == (1, 2, 4)
    stopped = []
    for number in range(12):
        trial = begun.next()
        assert trial is not None
        value = 1.0 - number / 100 if number % 2 else 0.1  # every other one is poor
        for epoch in (1, 2, 4, 8):
            if begun.report(trial.number, epoch, {ACCURACY: value}):
                stopped.append(number)
                break
        begun.end(trial.number, "stopped" if stopped[-1:] == [number] else "finished", {ACCURACY: value})
    assert {2, 4, 6, 8, 10} <= set(stopped)
    assert begun.trials[stopped[0]].reason.startswith("stopped by asha after 1 of 8 epochs")
    assert 1 not in stopped


@pytest.mark.parametrize(
    ("first", "reduction", "epochs", "expected"),
    [(0.25, 2, 8, (0.25, 0.5, 1, 2, 4)), (0.0625, 4, 5, (0.0625, 0.25, 1, 4)), (0.333, 3, 10, (1 / 3, 1, 3, 9)),
     (1, 4, 16, (1, 4)), (3, 4, 20, (3, 12)), (2.0, 2, 3, (2,)), (0.5, 2, 1, (0.5,))],
)  # fmt: skip
def test_rungs_are_parts_of_the_first_epoch_and_whole_epochs(
    first: float, reduction: int, epochs: int, expected: tuple[float, ...]
) -> None:
    begun = search(config("hyperband", TABLE, first_rung=first, reduction=reduction), epochs=epochs)
    assert begun.milestones == expected
    assert [type(epoch) for epoch in begun.milestones] == [type(epoch) for epoch in expected]
    for _ in range(9):
        trial = begun.next()
        assert trial is not None
        for epoch in (*expected, epochs):
            if begun.report(trial.number, epoch, {ACCURACY: trial.number / 10}):
                break
        begun.end(trial.number, "finished" if epoch == epochs else "stopped", {ACCURACY: trial.number / 10})
    assert begun.trials[8].status == "finished"  # better than all before it


@pytest.mark.parametrize(
    ("first", "line"),
    [(0.3, "below 1, with reduction: 4, it is one of 0.25, 0.0625, 0.01562, …, not 0.3"),
     (1.5, "above 1 it is a whole number of epochs, not 1.5"),
     (0, "greater than 0"), (-1, "greater than 0"), (float("nan"), "finite number"), (0.9, "it is one of")],
)  # fmt: skip
def test_a_rung_that_comes_to_no_whole_epoch_is_refused(first: float, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        config("asha", TABLE, first_rung=first)


def test_asha_of_several_objectives_keeps_the_fronts() -> None:
    objectives = {ACCURACY: "max", "cost/parameters": "min"}
    begun = search(config("asha", TABLE, reduction=2, objectives=objectives), epochs=4)
    # (accuracy, parameters): alone; better; smaller, but the rung has room for one; worse than all; the best; the worst
    results = [(0.5, 50), (0.6, 50), (0.3, 10), (0.2, 60), (0.7, 40), (0.1, 90)]
    stopped = []
    for accuracy, parameters in results:
        trial = begun.next()
        assert trial is not None
        assert not begun.report(trial.number, 0, {"cost/parameters": parameters})
        stopped.append(begun.report(trial.number, 1, {ACCURACY: accuracy}))
        seen = {ACCURACY: accuracy, "cost/parameters": parameters}
        begun.end(trial.number, "stopped" if stopped[-1] else "finished", seen)
    assert stopped == [False, False, True, True, False, True]


def test_a_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s" / "journal.jsonl"
    journal = Journal(path)
    drive(search(config("random", TABLE), journal=journal), 3)
    journal.close()
    with pytest.raises(InputError, match="the algorithm now suggests"):
        search(config("random", COUNTED), journal=Journal(path))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60))
def test_a_torn_last_line_is_as_if_it_had_not_been_written(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s" / "journal.jsonl"
        journal = Journal(path)
        drive(search(config("random", TABLE), journal=journal), 4)
        journal.close()
        events, _ = read_journal(path)
        path.write_bytes(path.read_bytes()[:-cut])
        journal = Journal(path)
        assert journal.events == events[: len(journal.events)]
        resumed = search(config("random", TABLE), journal=journal)
        drive(resumed, 4)
        journal.close()
        assert read_journal(path)[0][: len(journal.events)] == journal.events
        assert len(resumed.trials) <= 8 + 2


def test_a_changed_digit_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s" / "journal.jsonl"
    journal = Journal(path)
    drive(search(config("random", TABLE), journal=journal), 4)
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    number, digit = next((i, line.index(b"0.")) for i, line in enumerate(lines) if b"0." in line)
    lines[number] = lines[number][: digit + 2] + b"7" + lines[number][digit + 3 :]
    assert b"".join(lines) != path.read_bytes()
    path.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=f"journal.jsonl: line {number + 1} is damaged: restore the file, or start a"):
        read_journal(path)


SLOW = {"a": {"loguniform": [1e-3, 1.0]}, "b": {"choice": [1, 2, 3]}, "c": {"choice": ["x", "y"]}}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 6), st.integers(2, 9), st.integers(1, 5), st.integers(3, 14))
def test_a_population_has_a_sound_lineage(order: int, parallel: int, size: int, interval: int, epochs: int) -> None:
    begun = search(config("pbt", SLOW, population=size, interval=interval), epochs=epochs)
    random, generations = np.random.default_rng(order), -(-epochs // interval)
    ended: list[int] = []
    while True:
        while len(begun.running) < parallel and (trial := begun.next()) is not None:
            if trial.parent is None:
                assert trial.epochs == min(interval, epochs)
            else:
                parent = begun.trials[trial.parent]
                assert trial.parent in ended
                assert trial.epochs == min(parent.epochs + interval, epochs) > parent.epochs
            assert 1e-3 <= trial.values["a"] <= 1.0
        if not begun.running:
            break
        trial = begun.running[int(random.integers(len(begun.running)))]
        finish(begun, trial.number, score(trial.values) + trial.epochs)
        ended.append(trial.number)
    assert len(begun.trials) == size * generations
    by_age = [trial.epochs for trial in begun.trials]
    assert sorted(by_age) == sorted(size * [min((g + 1) * interval, epochs) for g in range(generations)])
    if parallel == 1:
        assert by_age == sorted(by_age)  # the youngest go first
    assert begun.next() is None
    assert begun.finished == "every member was trained to its end"


def test_the_worst_take_over_from_the_best_and_explore() -> None:
    begun = search(config("pbt", SLOW, population=8, interval=1), epochs=2)
    for _ in range(8):
        trial = begun.next()
        assert trial is not None
        finish(begun, trial.number, float(trial.number))
    second = [begun.next() for _ in range(8)]
    parents = [trial.parent for trial in second if trial]
    assert parents[2:] == [2, 3, 4, 5, 6, 7]
    assert set(parents[:2]) <= {6, 7}
    changed = [t.values != begun.trials[t.parent].values for t in second if t and t.parent is not None]
    assert changed == [True, True] + 6 * [False]


def test_a_failed_leg_takes_over_and_only_failures_begin_anew() -> None:
    begun = search(config("pbt", SLOW, population=2, interval=1), epochs=3)
    first, second = begun.next(), begun.next()
    assert first is not None
    assert second is not None
    begun.end(first.number, "failed", reason="out of memory")
    assert begun.next() is None  # it waits for the other
    finish(begun, second.number)
    third = begun.next()
    assert third is not None
    assert third.parent == second.number

    begun = search(config("pbt", SLOW, population=2, interval=1), epochs=3)
    for trial in (begun.next(), begun.next()):
        assert trial is not None
        begun.end(trial.number, "failed", reason="out of memory")
    anew = begun.next()
    assert anew is not None
    assert (anew.parent, anew.epochs) == (None, 1)
    assert anew.values != begun.trials[0].values


def test_a_full_disk_is_told_and_nothing_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "s" / "journal.jsonl")
    begun = search(config("random", COUNTED), journal=journal)
    begun.next()
    with Path("/dev/full").open("ab", buffering=0) as full:
        journal._file = full
        with pytest.raises(WorkError, match="cannot be written .No space left on device.: fix that"):
            begun.next()
    journal._lock.release()
    again = search(config("random", COUNTED), journal=Journal(journal.path))
    assert [trial.number for trial in again.trials] == [0]


def test_searched_epochs_are_where_a_trial_ends() -> None:
    begun = search(config("grid", {"train.epochs": {"choice": [2, 30]}}, budget={"trials": 2}))
    assert sorted((trial.values["train.epochs"], trial.epochs) for trial in (begun.next(), begun.next())) == [  # type: ignore[union-attr]
        (2, 2),
        (30, 30),
    ]
