"""A schedule every minute for ten minutes; the worker is killed once, the server restarted once: what became of each.

Every minute that was due must have a run that completed (did its work, or was skipped and says so) or crashed and says
why; no two may have worked at a time; none may be left running.
"""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime
from typing import Any

from benchmarks.common import figure
from benchmarks.flows import served, small_clone
from tests.support.flows import Site

MINUTES = 10
BLOCK = {"often": {"flow": "train-and-promote", "experiment": "digits", "cron": "* * * * *"}}
FINAL = {"COMPLETED", "CRASHED", "FAILED", "CANCELLED"}


def main(minutes: str = str(MINUTES)) -> None:
    with small_clone() as clone, served(clone, BLOCK) as services:
        begin = next_minute()
        for minute in range(int(minutes)):
            time.sleep(max(begin + 60 * minute + 8 - time.time(), 0))
            if minute == 3:  # 8 seconds behind the minute a run works
                services.end(services.worker, signal.SIGKILL)
                time.sleep(15)
                services.start_worker()
            if minute == 6:
                services.end(services.server, signal.SIGKILL)
                time.sleep(10)
                services.start_server()
        time.sleep(max(begin + 60 * int(minutes) - time.time(), 0))
        time.sleep(60)  # whatever is stuck now is stuck
        figure(f"a schedule every minute for {minutes} minutes, a worker killed, a server restarted",
               **account(services, begin, int(minutes)))  # fmt: skip


def next_minute() -> float:
    """The first whole minute from which on all are counted."""
    return (time.time() // 60 + 2) * 60


def account(services: Site, begin: float, minutes: int) -> dict[str, Any]:
    """What became of each due time."""
    runs = {moment(run["expected_start_time"]): run for run in services.runs() if run["auto_scheduled"]}
    due = [begin + 60 * minute for minute in range(minutes)]
    there = [runs[time] for time in due if time in runs]
    skipped = [run for run in there if run["state"]["message"].startswith("skipped")]
    worked = [run for run in runs.values() if run["start_time"] and run not in skipped]
    spans = sorted((moment(run["start_time"]), moment(run["end_time"] or "9999-01-01T00:00:00Z")) for run in worked)
    overlaps = sum(later[0] < earlier[1] for earlier, later in zip(spans, spans[1:], strict=False))
    return {
        "due": len(due),
        "worked": sum(run["state_type"] == "COMPLETED" for run in there) - len(skipped),
        "skipped": len(skipped),
        "crashed": sum(run["state_type"] == "CRASHED" for run in there),
        "without_a_run": len(due) - len(there),
        "overlaps": overlaps,
        "stuck": sum(run["state_type"] not in FINAL for run in there[:-1]),
    }


def moment(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


if __name__ == "__main__":
    main()
