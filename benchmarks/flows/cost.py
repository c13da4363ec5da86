"""What Prefect costs: seconds of a flow outside its stages, a task, and the start of a server of its own.

Read from the flow's own log lines: a stage lasts from its task's first word to its last.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.common import environment, figure
from benchmarks.flows import served, small_clone
from tests.support.flows import Site

LINE = re.compile(r"^(\d\d:\d\d:\d\d\.\d{3}) .*?(Task run '([^']+)' - (.+)|Flow run '[^']+' - (.+))$", re.MULTILINE)
TASKS = """
import time
from prefect import flow, task
from pipelines.runtime.stages import RETRIED

@task(**RETRIED)
def nothing(i): pass

@flow
def many(count):
    nothing(0)
    began = time.perf_counter()
    for i in range(count): nothing(i)
    return (time.perf_counter() - began) / count

print("a task:", many(50))
"""


def main() -> None:
    with small_clone(train__epochs=20, train__workers=2) as clone:
        figure("a flow of the digits, with a server of its own", **flow(clone, environment(clone)))
        figure("the same, nothing stale", **flow(clone, environment(clone)))
    with small_clone(train__epochs=20, train__workers=2) as clone, served(clone, {}) as services:
        figure("a flow of the digits, on a running server", **flow(clone, services.environment))
        figure("the same, nothing stale", **flow(clone, services.environment))
        figure("one task of no work, milliseconds", **task(services))


def flow(clone: Path, variables: dict[str, str]) -> dict[str, Any]:
    """Seconds of one flow: all of the command, the flow, and what of it was outside the stages."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pipelines", "train-and-promote", "digits"]
    done = subprocess.run(command, cwd=clone, env=variables, capture_output=True, text=True, check=True)
    seconds = time.monotonic() - began
    starts: dict[str, datetime] = {}
    inside, first, last = 0.0, None, None
    for stamp, _, stage, said, flow_said in LINE.findall(done.stderr):
        now = datetime.strptime(stamp, "%H:%M:%S.%f")
        first, last = first or now, now
        if stage and said == stage:
            starts[stage] = now
        elif stage and (said.endswith(" ran") or said.endswith("is unchanged")):
            inside += (now - starts[stage]).total_seconds()
        del flow_said
    assert first is not None
    assert last is not None
    whole = (last - first).total_seconds()
    return {
        "command_s": round(seconds, 1),
        "flow_s": round(whole, 2),
        "stages_s": round(inside, 2),
        "outside_s": round(whole - inside, 2),
        "outside_of_flow_percent": round(100 * (whole - inside) / whole, 1),
        "start_and_end_s": round(seconds - whole, 1),
    }


def task(services: Site) -> dict[str, Any]:
    """Of 50 tasks each, three times."""
    found = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", TASKS], cwd=services.root, capture_output=True, text=True, check=True,
            env={**os.environ, **services.environment, "PREFECT_LOGGING_LEVEL": "ERROR"},
        )  # fmt: skip
        found.append(1000 * float(done.stdout.split("a task:")[1]))
    return {"median": round(statistics.median(found), 1), "max": round(max(found), 1)}


if __name__ == "__main__":
    main()
