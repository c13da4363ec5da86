"""What the bookkeeping of a search costs: trials that sleep for a second, and trials that do nothing at all.

The bare arm is Ray Tune with actors that are used again, no record and no search state. Both have two slots.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from assay.settings import Settings
from assay.tracking.tracker import Tracker
from benchmarks.common import assay, figure, fresh_clone, run

SLOTS = 2
BLOCK = """
  knobs:
    task: {{name: tests.support.knobs, nap: {nap}}}
    data: digits
    train: {{epochs: 1, batch_size: 8, workers: 0}}
"""
SEARCH = """
  knobs:
    experiment: knobs
    algorithm: random
    budget: {{trials: {trials}}}
    parallel: 2
    space: {{task.x: {{uniform: [0, 1]}}, task.y: {{uniform: [0, 1]}}}}
"""
BARE = """
import os, sys, time
os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0")
import ray
from ray import tune
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
trials, nap = int(sys.argv[1]), float(sys.argv[2])
class Nap(tune.Trainable):
    def setup(self, config): pass
    def reset_config(self, config): return True
    def step(self):
        time.sleep(nap)
        return {"score": 1.0, "done": True}
    def save_checkpoint(self, folder): return None
    def load_checkpoint(self, checkpoint): pass
began = time.time()
tune.Tuner(
    tune.with_resources(Nap, {"cpu": 1}),
    param_space={"x": tune.uniform(0, 1)},
    tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True, max_concurrent_trials=2),
    run_config=tune.RunConfig(storage_path=sys.argv[3], name="bare", verbose=0),
).fit()
print("SECONDS", time.time() - began)
"""


def bare(trials: int, nap: float, folder: Path) -> float:
    """Seconds of Ray Tune alone, without the start of Ray."""
    command = [sys.executable, "-c", BARE, str(trials), str(nap), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return float(done.stdout.split("SECONDS")[1])


def ours(trials: int, nap: float, clone: Path) -> tuple[float, float, float]:
    """Seconds from the first trial's being asked for to the last one's end in MLflow; of the whole program, from its
    start to its exit, pictures and page included; and to the last trial's end, whether it is recorded or not.
    """
    params = clone / "params.yaml"
    text = params.read_text()
    before, _, _ = text.partition("\nsearches:")
    text = (
        before.replace("\npresets:", BLOCK.format(nap=nap) + "\npresets:")
        + "\nsearches:"
        + SEARCH.format(trials=trials)
    )
    params.write_text(text)
    began = time.monotonic()
    record = assay(clone, "tune", "knobs", "--new")
    whole = time.monotonic() - began
    run(clone, "git", "checkout", "-q", "params.yaml")
    assert record["completed"] == trials, record
    journal = clone / ".assay" / "runs" / record["search_id"] / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    asked = next(event["time"] for event in events if event["event"] == "ask")
    runs = Tracker(Settings(project=clone)).children("knobs", record["search_id"])
    assert len(runs) == trials
    recorded = max(found.info.end_time for found in runs) / 1000
    return recorded - asked, whole, events[-1]["time"] - asked


def main(trials: str = "300", instant: str = "200") -> None:
    """`trials` of one second each, then `instant` of none."""
    with fresh_clone() as clone:
        run(clone, "dvc", "repro", "-q", "data@digits")
        number = int(trials)
        least = number / SLOTS
        plain = bare(number, 1.0, clone)
        busy, whole, _ = ours(number, 1.0, clone)
        figure(
            "search_overhead", trials=number, minimum=least, bare_tune=round(plain, 1), assay=round(busy, 1),
            whole_program=round(whole, 1), ratio=round(busy / least, 3), bare_ratio=round(plain / least, 3),
            whole_ratio=round(whole / least, 3),
        )  # fmt: skip
        number = int(instant)
        plain = bare(number, 0.0, clone)
        busy, whole, trained = ours(number, 0.0, clone)
        figure(
            "instant_trials", trials=number, a_second=round(number / busy, 1), bare_a_second=round(number / plain, 1),
            without_record=round(number / trained, 1), whole_program=round(whole, 1),
        )  # fmt: skip
