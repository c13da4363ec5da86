"""`make demo` in a fresh clone, dependencies installed: seconds, peak memory, and what a second time adds."""

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
        seconds, peak = demo(clone)
        figure("demo, seconds", value=round(seconds, 1))
        figure("demo, peak PSS of the process tree, GiB", value=round(peak / 2**30, 2))
        before = counts(clone)
        seconds, _ = demo(clone)
        after = counts(clone)
        new = {name: after[name] - before[name] for name in after}
        figure("demo again, seconds", value=round(seconds, 1), new=new)


def demo(clone: Path) -> tuple[float, int]:
    """(seconds, peak PSS in bytes) of one `make demo`."""
    started = time.monotonic()
    command = ["make", "demo", f"VENV={sys.prefix}", "--old-file=setup"]
    with subprocess.Popen(command, cwd=clone, env=environment(clone), stdout=subprocess.DEVNULL) as child:
        peak = [0]
        watcher = threading.Thread(target=watch, args=(psutil.Process(child.pid), peak))
        watcher.start()
        code = child.wait()
        seconds = time.monotonic() - started
        watcher.join()
    if code:
        sys.exit(f"make demo ended with {code}")
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
    experiments = [experiment.experiment_id for experiment in tracker._client.search_experiments()]
    runs = tracker._client.search_runs(experiments, max_results=1000)
    steps = sum(tracker.record(run.info.run_id)["steps"] for run in runs)
    return {"runs": len(runs), "steps": steps, "versions": len(tracker._client.search_model_versions())}


if __name__ == "__main__":
    main()
