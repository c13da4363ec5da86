"""A search of real trainings, killed with -9 three times: its driver, a worker, the raylet.

Beside it its twin that nobody kills. One trial at a time, so that both see the same results in the same order.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import BIN, assay, environment, figure, fresh_clone, run

ALGORITHMS = ("random", "grid", "tpe", "nsga2", "asha", "hyperband", "pbt", "evolution", "local_search")
SPACE = {
    "optimizer.lr": {"choice": [0.0003, 0.001, 0.003, 0.01]},
    "optimizer.weight_decay": {"choice": [0.0, 0.01, 0.05]},
    "task.dropout": {"choice": [0.0, 0.1, 0.2, 0.3, 0.4]},
}
SECONDS = 300.0


def block(algorithm: str, trials: int) -> dict[str, Any]:
    """The search, and where the algorithm cannot have it otherwise, what it needs."""
    search = {
        "experiment": "digits", "algorithm": algorithm, "budget": {"trials": trials}, "parallel": 1, "space": SPACE,
        "set": {"train.workers": 0, "train.epochs": 5, "task.width": 8}, "population": 8,
    }  # fmt: skip
    if algorithm == "nsga2":
        search["objectives"] = {"val/accuracy": "max", "val/ece": "min"}
    return search


def write(clone: Path, searches: dict[str, Any]) -> None:
    from ruamel.yaml import YAML

    yaml, path = YAML(), clone / "params.yaml"
    data = yaml.load(path)
    data["searches"] = searches
    yaml.dump(data, path)


def journals(clone: Path) -> list[Path]:
    """Of all searches, the newest last."""
    found = (clone / ".assay/runs").glob("*/journal.jsonl")
    return sorted(found, key=lambda path: path.stat().st_ctime)


def start(clone: Path, name: str) -> subprocess.Popen[bytes]:
    with (clone / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [str(BIN / "assay"), "tune", name], cwd=clone, env=environment(clone), stdout=log, stderr=log
        )


def wait_for(clone: Path, searches: int, count: int, child: subprocess.Popen[bytes]) -> None:
    """Until the newest of so many searches has so many trials that came to an end."""
    limit = time.monotonic() + SECONDS
    while len(found := journals(clone)) < searches or found[-1].read_text().count('"event":"end"') < count:
        assert child.poll() is None, (clone / "log.txt").read_text()[-2000:]
        assert time.monotonic() < limit, "it takes too long"
        time.sleep(0.02)


def kill_child(child: subprocess.Popen[bytes], *names: str) -> None:
    """Kill a process that the search has started, by the beginning of its name."""
    (found, *_) = [p for p in psutil.Process(child.pid).children(recursive=True) if p.name().startswith(names)]
    found.send_signal(signal.SIGKILL)


def killed(clone: Path, name: str, trials: int) -> dict[str, Any]:
    """Run the search through three kills to its end; its record."""
    searches = len(journals(clone)) + 1
    child = start(clone, name)
    wait_for(clone, searches, trials // 4, child)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child = start(clone, name)
    wait_for(clone, searches, trials // 2, child)
    kill_child(child, "ray::Slot", "ray::Resource")  # as Ray names the actor while it works
    wait_for(clone, searches, 3 * trials // 4, child)
    kill_child(child, "raylet")
    child.wait(SECONDS)
    return assay(clone, "tune", name)


def story(clone: Path, search_id: str, name: str) -> tuple[list[Any], list[Any], int]:
    """What was asked in order, the next ten suggestions, and how many trials were trained again after their end."""
    from assay.settings import Settings
    from assay.tune.journal import Journal
    from assay.tune.search import Search
    from assay.usecases.helpers.search_context import SearchContext

    context = SearchContext.of(name, Settings(project=clone))
    journal = Journal(clone / ".assay/runs" / search_id / "journal.jsonl")
    search = Search(context.config, context.space, context.experiment, journal)
    journal.close()
    asked = [(dict(trial.values), trial.parent, trial.metrics) for trial in search.trials]
    return asked, search.suggestions(10), search.repeated


def recorded(clone: Path, search_id: str) -> dict[str, int]:
    """The statuses of the search's runs in MLflow."""
    from collections import Counter

    from assay.settings import Settings
    from assay.tracking.tracker import Tracker

    return dict(Counter(run.info.status for run in Tracker(Settings(project=clone)).children("digits", search_id)))


def main(trials: str = "40", algorithms: str = ",".join(ALGORITHMS)) -> None:
    """`trials` of each of `algorithms`, which are separated by commas."""
    number = int(trials)
    with fresh_clone() as clone:
        run(clone, "dvc", "repro", "-q", "data@digits")
        names = algorithms.split(",")
        blocks = {name.replace("_", "-"): block(name, number) for name in names}
        write(clone, blocks | {f"{name}-killed": same for name, same in blocks.items()})
        for algorithm in names:
            name = algorithm.replace("_", "-")
            whole = assay(clone, "tune", name)
            record = killed(clone, f"{name}-killed", number)
            same, next_same, _ = story(clone, whole["search_id"], name)
            asked, following, repeated = story(clone, record["search_id"], f"{name}-killed")
            figure(
                "killed_search", algorithm=algorithm, trials=record["trials"], completed=record["completed"],
                repeated=repeated, same_trials=asked == same, same_next_ten=following == next_same,
                next=len(following), runs=recorded(clone, record["search_id"]), seconds=record["seconds"],
                unkilled_seconds=whole["seconds"],
            )  # fmt: skip
