"""Eight flows started at once in one checkout, by hand and by the server: who completes, what is locked or corrupt."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import environment, figure, run
from benchmarks.flows import schedule, served, small_clone

FLOWS = 8
SECONDS = 1800.0
WORDS = ("database is locked", "unable to acquire lock", "is busy", "being trained by another process")
BLOCK = {"digits": {"flow": "train-and-promote", "experiment": "digits", "interval": "1 week"}}


def main() -> None:
    with small_clone() as clone:
        by_hand(clone)
    with small_clone() as clone:
        by_server(clone)


def by_hand(clone: Path) -> None:
    """Eight processes, each of which brings a Prefect server of its own."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pipelines", "train-and-promote", "digits"]
    flows = [
        subprocess.Popen(command, cwd=clone, env=environment(clone), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(FLOWS)
    ]
    said = [flow.communicate(timeout=SECONDS)[0].decode(errors="replace") for flow in flows]
    report("8 flows at once, by hand", clone, [flow.returncode == 0 for flow in flows], said, began)


def by_server(clone: Path) -> None:
    """Eight runs of a deployment."""
    with served(clone, BLOCK) as services:
        began = time.monotonic()
        runs = [schedule(services, "run", "digits")["flow_run"] for _ in range(FLOWS)]
        ended = [services.wait_state(r, "COMPLETED", "FAILED", "CRASHED", seconds=SECONDS) for r in runs]
        said = [services.flow_log(flow_run) for flow_run in runs]
        report("8 flows at once, by the server", clone, [r["state_type"] == "COMPLETED" for r in ended], said, began)


def report(name: str, clone: Path, completed: list[bool], said: list[str], began: float) -> None:
    errors = sum(word in text.lower() for text in said for word in WORDS)
    figure(
        name,
        completed=sum(completed),
        lock_errors=errors,
        corrupt=corrupt(clone),
        seconds=round(time.monotonic() - began, 1),
    )


def corrupt(clone: Path) -> int:
    """Outputs that are not whole, or not what DVC recorded."""
    bad = 0
    for name in ("train", "metrics", "model"):
        try:
            json.loads((clone / f"results/digits/{name}.json").read_text())
        except (OSError, ValueError):
            bad += 1
    status = json.loads(run(clone, "dvc", "status", "--json", "register@digits"))
    return bad + len(status)


if __name__ == "__main__":
    main()
