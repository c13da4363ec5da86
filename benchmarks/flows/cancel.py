"""How long after the word of cancelling a training has stopped, and whether what goes on from there is exact."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import BIN, figure, run
from benchmarks.flows import schedule, served, small_clone
from tests.support.flows import Site
from tests.support.servers import wait_for

BLOCK = {"digits": {"flow": "train-and-promote", "experiment": "digits", "interval": "1 week"}}
SECONDS = 900.0


def trains(clone: Path) -> list[psutil.Process]:
    """The processes of `assay train` in the clone."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if words[-2:] == ["train", "digits"] and "dvc" not in words and process.info["cwd"] == str(clone):
            found.append(process)
    return found


def cancelled(services: Site) -> dict[str, Any]:
    """One cancellation in mid-training."""
    saved = "checkpoints/step-*"
    before = {p.name for p in services.root.glob(f".assay/runs/*/{saved}")}
    flow_run = schedule(services, "run", "digits")["flow_run"]
    newer = lambda: {p.name for p in services.root.glob(f".assay/runs/*/{saved}")} - before  # noqa: E731
    wait_for("a checkpoint", newer, SECONDS)
    began = time.monotonic()
    services.set_state(flow_run, "CANCELLING")
    wait_for("the end of training", lambda: not trains(services.root), SECONDS)
    stopped = time.monotonic() - began
    state = services.wait_state(flow_run, "CANCELLED", "CRASHED", "FAILED")["state_name"]
    return {"seconds": round(stopped, 1), "state": state, "checkpoint": bool(newer())}


def main(times: str = "3") -> None:
    with small_clone(train__epochs=20, train__checkpoint_seconds=0.5) as clone, served(clone, BLOCK) as services:
        for _ in range(int(times)):
            figure("a training flow is cancelled: until training has stopped", **cancelled(services))
        flow_run = schedule(services, "run", "digits")["flow_run"]
        services.wait_state(flow_run, "COMPLETED", "FAILED", "CRASHED", seconds=SECONDS)
        resumed = json.loads((clone / "results/digits/train.json").read_text())
        whole = json.loads(run(clone, str(BIN / "assay"), "train", "digits", "--new", "--json"))
        same = resumed["weights_sha256"] == whole["weights_sha256"]
        steps, trained = re.search(r"steps +(\d+) \((\d+) in this session\)", services.flow_log(flow_run)).groups()
        figure(
            "cancelled and gone on with, against never cancelled", identical=same, steps=int(steps), last=int(trained)
        )


if __name__ == "__main__":
    main()
