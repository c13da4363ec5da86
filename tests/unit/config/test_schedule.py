"""`schedules:` is checked with all of params.yaml; what it takes, Prefect takes, and means the same by it."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect._vendor.croniter import croniter
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

from assay.config.params import parse_params
from assay.config.schedule import DOUBTFUL, UNITS, ScheduleConfig, check_cron
from assay.errors import InputError

BASE: dict[str, Any] = {
    "datasets": {"digits": {"source": {"kind": "digits"}}},
    "experiments": {"digits": {"task": {"name": "classification"}, "data": "digits"}},
    "searches": {
        "hpo": {"experiment": "digits", "budget": {"trials": 2}, "space": {"optimizer.lr": {"uniform": [0.1, 0.2]}}}
    },
}
NIGHTLY = {"flow": "retrain", "experiment": "digits", "cron": "0 3 * * *", "timezone": "Europe/Berlin"}


def parsed(**block: Any) -> ScheduleConfig:
    return parse_params({**deepcopy(BASE), "schedules": {"nightly": block}}, "params.yaml").schedules["nightly"]


def faults(**block: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        parsed(**block)
    return str(caught.value).splitlines()


def test_what_a_schedule_calls_its_flow_with() -> None:
    assert parsed(**NIGHTLY).parameters == {"experiment": "digits"}
    assert parsed(flow="nightly-search", search="hpo", minutes=90, interval="1 day").parameters == {
        "search": "hpo",
        "minutes": 90,
    }
    asked = parsed(flow="promote", model="digits", approval=True, interval="15 minutes")
    assert asked.parameters == {"model": "digits", "approval": True}
    assert asked.every == timedelta(minutes=15)
    assert asked.timezone == "UTC"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"cron": "61 * * * *"}, "nightly.cron: cron: cannot read '61' as minute, in '61 * * * *'"),
        ({"cron": "0 3 * * mondy"}, "nightly.cron: cron: cannot read 'mondy' as day of the week"),
        ({"cron": "0 3 * *"}, "nightly.cron: a cron line has five fields"),
        ({"cron": "0 0 31 2 *"}, "nightly.cron: cron: no day matches '0 0 31 2 *'"),
        ({"timezone": "Europe/Berln"}, "timezone: unknown time zone 'Europe/Berln'; did you mean 'Europe/Berlin'?"),
        ({"flow": "retrian"}, "nightly.flow: unknown flow 'retrian'; did you mean 'retrain'?"),
        ({"experiment": "digit"}, "nightly.experiment: unknown experiment 'digit'; did you mean 'digits'?"),
        ({"cron": None}, "nightly: give either cron or interval, not neither"),
        ({"interval": "1 day"}, "nightly: give either cron or interval, not both"),
        ({"interval": "quarter", "cron": None}, "nightly.interval: write a whole number and a unit"),
        ({"interval": "0 days", "cron": None}, "nightly.interval: write a whole number and a unit"),
        ({"experiment": None}, "nightly: retrain needs experiment"),
        ({"search": "hpo"}, "nightly: retrain takes no search"),
        ({"minutes": 5}, "nightly: retrain takes no minutes"),
        ({"cronn": "x"}, "nightly.cronn: unknown key 'cronn'; did you mean 'cron'?"),
        ({"flow": "nightly-search", "experiment": None, "search": "hop"}, "unknown search 'hop'; did you mean 'hpo'?"),
        ({"flow": "promote", "experiment": None, "model": "other"}, "nightly.model: unknown experiment 'other'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(changes: dict[str, Any], line: str) -> None:
    (fault,) = faults(**{key: value for key, value in {**NIGHTLY, **changes}.items() if value is not None})
    assert line in fault
    assert fault.startswith("params.yaml: schedules.")


def test_every_block_that_names_what_is_not_there_is_told_at_once() -> None:
    blocks = {name: {**NIGHTLY, "experiment": name} for name in ("digit", "digitz")}
    with pytest.raises(InputError) as caught:
        parse_params({**deepcopy(BASE), "schedules": blocks}, "params.yaml")
    assert len(str(caught.value).splitlines()) == 2


def part(low: int, high: int) -> st.SearchStrategy[str]:
    """One field: numbers, ranges, steps and lists of them."""
    number = st.integers(low, high)
    pair = st.tuples(number, number).map(sorted).map(lambda ends: f"{ends[0]}-{ends[1]}")
    term = st.one_of(st.just("*"), number.map(str), pair)
    stepped = st.tuples(term, st.integers(1, high)).map(lambda given: f"{given[0]}/{given[1]}")
    return st.one_of(st.just("*"), term, stepped, st.lists(number.map(str), min_size=1, max_size=4).map(",".join))


LINES = st.tuples(part(0, 59), part(0, 23), part(1, 31), part(1, 12), part(0, 7)).map(" ".join)
TEXTS = st.lists(st.text("0123456789*/,-LW#RHr?@ adinosun", max_size=5), min_size=4, max_size=6).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(st.one_of(LINES, TEXTS))
def test_a_cron_line_that_passes_means_the_same_to_prefect(line: str) -> None:
    try:
        check_cron(line)
    except ValueError:
        return
    CronSchedule(cron=line, timezone="Europe/Berlin")
    start, end = datetime(2026, 7, 1, 11, 17), datetime(2026, 8, 31)  # Prefect miscounts days behind a shorter month
    ours = [time for time in islice(CronSim(line, start), 3) if time < end]
    theirs = croniter(line, start)
    assert ours == [theirs.get_next(datetime) for _ in ours]


@settings(max_examples=200, deadline=None)
@given(LINES)
def test_only_doubtful_lines_are_refused_that_prefect_would_take(line: str) -> None:
    """Those that programs read differently, and those that never come."""
    minute, hour, day, month, weekday = line.split()
    parts = (minute, hour, day, month, weekday)
    both = "*" not in (day, weekday) and "*/" in day + weekday
    if both or not croniter.is_valid(line) or any(DOUBTFUL.search(part) for part in parts):
        return
    try:
        croniter(line, datetime(2026, 1, 1)).get_next(datetime)
    except ValueError:  # no such day
        return
    check_cron(line)


@given(st.integers(1, 999_999), st.sampled_from(sorted(UNITS)))
def test_intervals_are_what_they_say(count: int, unit: str) -> None:
    config = parsed(flow="retrain", experiment="digits", interval=f"{count} {unit}s")
    assert config.every == timedelta(seconds=count * UNITS[unit])
    IntervalSchedule(interval=config.every, anchor_date=datetime(2024, 1, 1, tzinfo=UTC))
