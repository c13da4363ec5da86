"""The demo's flow in a fresh clone: seconds, peak memory of the process tree, and what a second time adds."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from benchmarks.common import environment, figure, fresh_clone

SAMPLE_SECONDS = 0.5


def main() -> None:
    with fresh_clone() as clone:
        seconds, peak = flow(clone)
        figure("demo, seconds", value=round(seconds, 1))
        figure("demo, peak PSS of the process tree, GiB", value=round(peak / 2**30, 2))
        before = counts(clone)
        seconds, _ = flow(clone)
        after = counts(clone)
        new = {name: after[name] - before[name] for name in after}
        figure("demo again, seconds", value=round(seconds, 1), new=new)


def flow(clone: Path) -> tuple[float, int]:
    """(seconds, peak PSS in bytes) of one run of the demo's flow."""
    started = time.monotonic()
    command = [sys.executable, "-m", "pipelines", "train-and-promote", "digits"]
    with subprocess.Popen(command, cwd=clone, env=environment(clone), stdout=subprocess.DEVNULL) as child:
        peak = [0]
        watcher = threading.Thread(target=watch, args=(psutil.Process(child.pid), peak))
        watcher.start()
        code = child.wait()
        seconds = time.monotonic() - started
        watcher.join()
    if code:
        sys.exit(f"the flow ended with {code}")
    return seconds, peak[0]


def watch(process: psutil.Process, peak: list[int]) -> None:
    """Sum the proportional memory of a process and all below it, until it ends."""
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        total = 0
        try:
            members = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for member in members:
            try:
                total += member.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        peak[0] = max(peak[0], total)
        time.sleep(SAMPLE_SECONDS)


def counts(clone: Path) -> dict[str, int]:
    """Runs, training steps and model versions in the clone's tracking store."""
    from assay.settings import Settings
    from assay.tracking.tracker import Tracker

    tracker = Tracker(Settings(project=clone))
    experiment = tracker.client.get_experiment_by_name("digits")
    assert experiment is not None
    runs = tracker.client.search_runs([experiment.experiment_id])
    steps = sum(tracker.record(run.info.run_id)["steps"] for run in runs)
    return {"runs": len(runs), "steps": steps, "versions": len(tracker.client.search_model_versions("name = 'digits'"))}


if __name__ == "__main__":
    main()
