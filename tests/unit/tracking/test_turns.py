"""Turns come one after another, in the order in which they were asked for, and outlive whoever dies in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from assay.errors import WorkError
from assay.owner import Owner
from assay.settings import Settings
from assay.tracking import turns
from assay.tracking.tracker import Tracker
from assay.tracking.turns import turn
from tests.support.turns import take_turns

ELSEWHERE = json.dumps({**replace(Owner.here(), machine="another").plain(), "key": "k"})
HOLDER = """
import sys, time
from pathlib import Path
from assay.settings import Settings
from assay.tracking.tracker import Tracker
from assay.tracking.turns import turn

with turn(Tracker(Settings(project=Path(sys.argv[1]))), "model killed", print):
    print("held", flush=True)
    time.sleep(600)
"""


def silent(_line: str) -> None: ...


def open_tickets(tracker: Tracker, subject: str) -> list[int]:
    return [ticket.number for ticket in tracker.tickets() if ticket.subject == subject]


def test_no_two_have_a_turn_at_once(tracker: Tracker) -> None:
    most, order = take_turns([tracker] * 4, each=2)
    assert most == 1
    assert len(order) == 8
    assert order == sorted(order)
    assert open_tickets(tracker, "model one") == []


def test_other_subjects_do_not_wait(tracker: Tracker) -> None:
    with turn(tracker, "model a", silent), turn(tracker, "model b", silent):
        assert len(open_tickets(tracker, "model a") + open_tickets(tracker, "model b")) == 2


def test_a_killed_holder_is_noticed_at_once(settings: Settings, tracker: Tracker) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(settings.root)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    lines: list[str] = []

    def killed_once_somebody_waits(line: str) -> None:
        lines.append(line)
        child.send_signal(signal.SIGKILL)
        child.wait()

    with turn(tracker, "model killed", killed_once_somebody_waits) as held:
        assert open_tickets(tracker, "model killed") == [held.number]
    assert lines == ["waiting for another process that is at work on model killed"]
    child.stdout.close()


def test_a_holder_elsewhere_is_dead_after_a_minute_of_silence_and_not_before(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    other = tracker.take_ticket("model far", ELSEWHERE)
    looks = []

    def later(_seconds: float) -> None:
        nonlocal now
        now += 7
        looks.append(now)
        if len(looks) == 3:
            tracker.renew_ticket(other, "a later beat")
        tracker.renew_ticket(mine[0], f"{now}")

    mine = [other + 1]
    monkeypatch.setattr(turns, "LOST_SECONDS", 1e9)  # this clock goes without the thread that renews
    monkeypatch.setattr(time, "sleep", later)
    with turn(tracker, "model far", silent) as held:
        assert held.number == mine[0]
        assert open_tickets(tracker, "model far") == [held.number]
    assert looks[-1] - looks[2] > turns.DEAD_SECONDS


def test_a_holder_whose_ticket_was_taken_away_changes_nothing(tracker: Tracker) -> None:
    with turn(tracker, "model lost", silent) as held:
        held.require()
        tracker.drop_ticket(held.number)
        with pytest.raises(WorkError, match="lost the turn with model lost"):
            held.require()


def test_a_holder_that_stood_still_gives_up_before_others_take_its_turn(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with turn(tracker, "model still", silent) as held:
        later = time.monotonic() + turns.LOST_SECONDS + 1
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(WorkError, match="this process stood still"):
            held.require()
    assert turns.LOST_SECONDS < turns.DEAD_SECONDS


def test_an_interrupted_wait_leaves_no_ticket(tracker: Tracker) -> None:
    def interrupted(_line: str) -> None:
        raise KeyboardInterrupt

    with turn(tracker, "model busy", silent) as held:
        with pytest.raises(KeyboardInterrupt), turn(tracker, "model busy", interrupted):
            pass
        assert open_tickets(tracker, "model busy") == [held.number]


def test_what_a_repeated_request_left_behind_does_not_block(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Tracker.take_ticket

    def twice(self: Tracker, subject: str, owner: str) -> int:
        take(self, subject, owner)
        return take(self, subject, owner)

    monkeypatch.setattr(Tracker, "take_ticket", twice)
    with turn(tracker, "model twice", silent) as held:
        assert open_tickets(tracker, "model twice") == [held.number]


def test_numbers_are_never_given_out_again(tracker: Tracker) -> None:
    first = tracker.take_ticket("model numbers", ELSEWHERE)
    tracker.drop_ticket(first)
    tracker.drop_ticket(first)
    assert not tracker.renew_ticket(first, "1")
    second = tracker.take_ticket("model numbers", ELSEWHERE)
    tracker.drop_ticket(second)
    assert second > first
