"""How soon a slot is free again when ASHA stops its trial, and whether anything stays reserved after many."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.common import figure, fresh_clone, run, spread
from benchmarks.search.overhead import BLOCK

SEARCH = """
searches:
  knobs:
    experiment: knobs
    algorithm: asha
    reduction: 3
    budget: {{trials: {trials}}}
    parallel: 2
    set: {{train.epochs: 27}}
    space: {{task.x: {{uniform: [0, 1]}}, task.y: {{uniform: [0, 1]}}}}
"""


def main(trials: str = "110") -> None:
    """Counted from the report at which a trial is told to end to the next trial's being given to the slot."""
    with fresh_clone() as clone:
        run(clone, "dvc", "repro", "-q", "data@digits")
        params = clone / "params.yaml"
        before, _, _ = params.read_text().partition("\nsearches:")
        params.write_text(before.replace("\npresets:", BLOCK.format(nap=0.05) + "\npresets:"))
        with params.open("a") as file:
            file.write(SEARCH.format(trials=trials))
        os.chdir(clone)
        gaps, stopped, left, free = searched(clone)
    figure("stopped_trials", stopped=stopped, seconds_to_next=spread(gaps), placement_groups_left=left, cpus_free=free)


def searched(clone: Path) -> tuple[list[float], int, int, float]:
    """(seconds for each stopped trial, how many, placement groups left, CPUs that are free at the end)."""
    from assay.settings import Settings
    from assay.tune.journal import read_journal
    from assay.usecases.helpers.search_progress import SearchProgress
    from assay.usecases.tune import TuneRequest, tune
    from assay.workers.ray_session import ray_running

    settings = Settings(project=clone)
    with ray_running(settings, lambda _: None):
        import ray
        from ray.util import placement_group_table

        record = tune(TuneRequest("knobs"), settings, SearchProgress(lambda _: None))
        groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        free = ray.available_resources().get("CPU", 0.0)
    events, _ = read_journal(clone / ".assay/runs" / record["search_id"] / "journal.jsonl")
    last = {}
    gaps = []
    for place, event in enumerate(events):
        if event["event"] == "report":
            last[event["trial"]] = event["time"]
        if event["event"] == "end" and event["status"] == "stopped":
            following = next((e["time"] for e in events[place:] if e["event"] == "ask"), None)
            gaps += [] if following is None else [following - last[event["trial"]]]
    return gaps, record["stopped"], len(groups), free
