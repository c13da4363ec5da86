"""`assay tune` for real: trials on Ray Tune, each a child run; failures told, kills survived, nothing repeated."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import psutil
import pytest

from assay.config.experiment import parse_experiment
from assay.config.params import load_params
from assay.config.schema import resolved
from assay.errors import InputError, WorkError
from assay.tracking.tracker import Tracker, flatten
from assay.usecases.apply import apply_trial
from assay.usecases.evaluate import evaluate
from tests.conftest import BIN, Project
from tests.support.searched import Searched
from tests.support.servers import wait_for


@pytest.fixture
def searched(project: Project) -> Searched:
    return Searched(project)


@pytest.fixture
def scheduled(flow_project: Project) -> Searched:
    return Searched(flow_project)


@pytest.mark.usefixtures("shared_ray")
def test_a_search_is_a_tree_of_runs_and_goes_on_with_a_larger_budget(searched: Searched) -> None:
    searched.write(algorithm="tpe", objectives={"val/score": "max", "val/effort": "min"})
    first = searched.tune()
    assert (first["status"], first["trials"], first["completed"], first["repeated"]) == ("FINISHED", 6, 6, 0)
    assert first["epochs"] == 24
    again = searched.tune()
    assert (again["search_id"], again["seconds"]) == (first["search_id"], first["seconds"])

    searched.write(algorithm="tpe", objectives={"val/score": "max", "val/effort": "min"}, budget={"trials": 9})
    more = searched.tune()
    assert (more["search_id"], more["trials"], more["repeated"]) == (first["search_id"], 9, 0)
    asked = [event["trial"] for event in searched.events(first["search_id"]) if event["event"] == "ask"]
    assert asked == list(range(9))

    history = Tracker(searched.project.settings)._client.get_metric_history(more["search_id"], "val/score")
    assert [point.step for point in history] == list(range(1, 10))  # each point once, of both sessions
    values = [point.value for point in history]
    assert values == sorted(values)

    runs = searched.trials(more["search_id"])
    assert Counter(run.info.status for run in runs) == {"FINISHED": 9}
    config = load_params(searched.params).experiment("knobs")
    for run in runs:
        assert set(run.data.params) == set(flatten(resolved(config)))  # the names of any training run
        assert 0 <= float(run.data.params["task.x"]) <= 1
        assert run.data.tags["assay.commit"]
        assert "val/score" in run.data.metrics
    listed = searched.project.assay("runs", "--kind", "trial", "--experiment", "knobs")["runs"]
    assert {run["search_id"] for run in listed} == {more["search_id"]}
    assert [run["started"] for run in listed] == sorted((run["started"] for run in listed), reverse=True)
    (search,) = searched.project.assay("runs", "--kind", "search")["runs"]
    assert (search["run_id"], search["status"]) == (more["search_id"], "FINISHED")
    results = searched.project.root / "results/searches/s"
    assert json.loads((results / "search.json").read_text())["best"] == more["best"]
    assert "<html" in (results / "search.html").read_text()
    assert len((results / "trials.csv").read_text().splitlines()) == 10

    best = evaluate(more["best"]["run_id"], "val", searched.project.settings, lambda _: None)
    assert best["metrics"]["val/score"] == pytest.approx(more["best"]["metrics"]["val/score"])


@pytest.mark.thorough
@pytest.mark.usefixtures("shared_ray")
def test_what_befalls_a_trial_is_told_and_the_search_goes_on(searched: Searched) -> None:
    fates = ["none", "raise", "nan", "memory", "die", "mute"]
    searched.write(
        algorithm="grid",
        space={"task.fate": {"choice": fates}, "task.x": {"choice": [0.0, 0.5]}},
        set={"task.from_x": 0.2},
        objectives={"val/score": "max", "val/effort": "min"},
        budget={"trials": 20},
    )
    record = searched.tune()
    assert record["reason"] == "every configuration of the space was tried"
    assert (record["finished"], record["failed"], record["trials"]) == (6, 6, 12)
    struck = [run for run in searched.trials(record["search_id"]) if run.data.params["task.x"] == "0.5"]
    reasons = {run.data.params["task.fate"]: run.data.tags["assay.reason"] for run in struck}
    assert reasons["none"] == ""
    assert reasons["raise"] == "RuntimeError: this trial was made to fail"
    assert reasons["nan"].startswith("train/loss became nan") or "nan" in reasons["nan"]
    raised = next(run for run in struck if run.data.params["task.fate"] == "raise")
    told = json.loads(Tracker(searched.project.settings).read_bytes(raised.info.run_id, "failure.json"))
    assert "in train_step" in told["traceback"]
    assert reasons["memory"] == "MemoryError: not enough of it"
    assert reasons["die"].startswith("its worker died 3 times without progress; the last time: ")
    assert reasons["mute"].startswith("it does not report val/effort; it reports ")
    assert record["best"]["config"]["task.x"] == 0.5
    assert record["best"]["config"]["task.fate"] == "none"


@pytest.mark.thorough
@pytest.mark.usefixtures("shared_ray")
def test_failures_in_a_row_stop_a_search_and_say_why(searched: Searched) -> None:
    searched.write(set={"task.fate": "raise"}, budget={"trials": 50})
    with pytest.raises(
        WorkError, match="5 trials in a row failed; the last: RuntimeError: this trial was made to fail"
    ):
        searched.tune()
    client = Tracker(searched.project.settings)._client
    experiment = client.get_experiment_by_name("knobs").experiment_id
    (search,) = client.search_runs([experiment], "tags.`assay.kind` = 'search'")
    assert search.info.status == "FAILED"
    assert "5 trials in a row failed" in search.data.tags["assay.reason"]
    assert 5 <= len(searched.trials(search.info.run_id)) <= 6


@pytest.mark.usefixtures("shared_ray")
def test_asha_stops_the_poor_ones_at_its_rungs(searched: Searched) -> None:
    halved = {"train.batch_size": 4}  # two steps in an epoch
    searched.write(scheduler="asha", reduction=2, first_rung=0.5, budget={"trials": 12}, set=halved)
    record = searched.tune()
    assert record["finished"] + record["stopped"] == 12
    assert record["stopped"] >= 4
    events = searched.events(record["search_id"])
    reached = {event["trial"]: event["epoch"] for event in events if event["event"] == "report"}
    status = {event["trial"]: event["status"] for event in events if event["event"] == "end"}
    assert {reached[trial] for trial, end in status.items() if end == "stopped"} <= {0.5, 1, 2}
    assert 0.5 in reached.values()  # after half of the images
    assert {reached[trial] for trial, end in status.items() if end == "finished"} == {4}
    assert record["epochs"] == sum(reached.values()) < 48


@pytest.mark.usefixtures("shared_ray")
def test_a_population_hands_its_weights_on(searched: Searched) -> None:
    searched.write(
        algorithm="pbt", population=4, interval=1, budget={"trials": 16},
        space={"task.x": {"uniform": [0, 1]}, "optimizer.lr": {"loguniform": [1e-3, 1e-1]}},
    )  # fmt: skip
    record = searched.tune()
    assert (record["trials"], record["finished"], record["epochs"]) == (16, 16, 16)
    ends = {e["trial"]: e["facts"] for e in searched.events(record["search_id"]) if e["event"] == "end"}
    asks = {e["trial"]: e for e in searched.events(record["search_id"]) if e["event"] == "ask"}
    heirs = {trial: ask["parent"] for trial, ask in asks.items() if ask["parent"] is not None}
    assert len(heirs) == 12
    for trial, parent in heirs.items():
        assert ends[trial]["inherited_sha256"] == ends[parent]["weights_sha256"]
        assert ends[trial]["weights_sha256"] != ends[parent]["weights_sha256"]
    assert any(Counter(heirs.values())[parent] > 1 for parent in heirs.values())  # somebody was copied


@pytest.mark.thorough
@pytest.mark.usefixtures("shared_ray")
def test_trials_of_two_workers_are_ray_train_jobs(searched: Searched) -> None:
    searched.write(
        set={"train.workers": 2, "train.batch_size": 4}, budget={"trials": 2}, parallel=1,
        scheduler="asha", reduction=2, first_rung=0.5,
        space={"task.x": {"choice": [0.7, 0.0]}, "task.nap": {"choice": [0.3]}},
    )  # fmt: skip
    record = searched.tune()
    assert record["finished"] + record["stopped"] == 2
    worlds = {run.data.tags["assay.world_size"] for run in searched.trials(record["search_id"])}
    assert worlds == {"2"}
    reports = [event["epoch"] for event in searched.events(record["search_id"]) if event["event"] == "report"]
    assert reports[:2] == [0.5, 1]


@pytest.mark.thorough
@pytest.mark.usefixtures("shared_ray")
def test_interrupted_and_killed_it_goes_on_and_repeats_nothing(searched: Searched) -> None:
    """Ctrl-C once, kill -9 once, each in the middle: then the same trials as a search that nobody disturbed has."""
    searched.write(set={"task.nap": 0.2}, budget={"trials": 8}, parallel=1)
    project = searched.project
    stopped = start(project)
    search_id = wait_for_ends(project, stopped, 2)
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait(60) == 130
    assert "to continue search " in (project.root / "log.txt").read_text()
    client = Tracker(project.settings)._client
    assert client.get_run(search_id).info.status == "KILLED"

    killed = start(project)
    wait_for_ends(project, killed, 4)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    limit = time.monotonic() + 30
    while "RUNNING" in {client.get_run(search_id).info.status, *(r.info.status for r in searched.trials(search_id))}:
        assert time.monotonic() < limit
        time.sleep(0.2)

    record = searched.tune(resume=search_id)
    assert (record["search_id"], record["trials"], record["completed"], record["repeated"]) == (search_id, 8, 8, 0)
    asked = [event["values"] for event in searched.events(search_id) if event["event"] == "ask"]
    alone = searched.tune(new=True)
    assert asked == [event["values"] for event in searched.events(alone["search_id"]) if event["event"] == "ask"]
    assert Counter(run.info.status for run in searched.trials(search_id)) == {"FINISHED": 8}
    for run in searched.trials(search_id):
        points = client.get_metric_history(run.info.run_id, "val/score")
        assert [point.step for point in points] == [1, 2, 3, 4]  # each evaluation once, also of the interrupted


def start(project: Project) -> subprocess.Popen[bytes]:
    with (project.root / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [str(BIN / "assay"), "tune", "s"], cwd=project.root, env=project.environment, stdout=log, stderr=log
        )


def wait_for_ends(project: Project, child: subprocess.Popen[bytes], count: int) -> str:
    limit = time.monotonic() + 120
    while True:
        journals = list((project.root / ".assay/runs").glob("*/journal.jsonl"))
        if journals and journals[0].read_text().count('"event":"end"') >= count:
            return journals[0].parent.name
        assert child.poll() is None, (project.root / "log.txt").read_text()
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"experiment": "knob"}, "searches.s.experiment: unknown experiment 'knob'; did you mean 'knobs'?"),
        ({"budget": {"trials": 0}}, "searches.s.budget.trials: input should be greater than or equal to 1, not 0"),
        ({"budget": {}}, "searches.s.budget: give trials, minutes or epochs, so that the search has an end"),
        ({"space": {}}, "searches.s: the space is empty: give `space` at least one key, or set networks: true"),
        ({"networks": True}, "searches.s.networks: task 'tests.support.knobs' has no networks to search"),
        ({"space": {"task.z": {"uniform": [0, 1]}}}, "searches.s.space: task.z: unknown key 'task.z'"),
        ({"space": {"task.x": {"uniform": [0, 2]}}}, "searches.s.space: task.x: input should be less than or equal"),
        ({"space": {"task.x": {"uniform": [1, 0]}}}, "uniform: the low end 1 must be below the high end 0"),
        ({"space": {"task.x": {"uniform": [0, 1], "choice": [1]}}}, "give exactly one of choice, uniform"),
        ({"space": {"task.kind": {"choice": ["plane"]}}}, "task.kind"),
        ({"objectives": {"val/accurracy": "max"}}, "searches.s.objectives: unknown metric 'val/accurracy'"),
        ({"objectives": {"val/score": "best"}}, "searches.s.objectives.val/score"),
        ({"algorithm": "tpee"}, "searches.s.algorithm"),
        (
            {"scheduler": "hyperband", "objectives": {"val/score": "max", "val/effort": "min"}},
            "hyperband compares by one objective, not by 2: use asha",
        ),
        (
            {"scheduler": "asha", "first_rung": 4},
            "first_rung: 4 epochs leave nothing to stop in trainings of 4: lower it, or raise train.epochs",
        ),
        (
            {"scheduler": "asha", "first_rung": 0.3},
            "searches.s.first_rung: below 1, with reduction: 4, it is one of 0.25",
        ),
        (
            {"scheduler": "asha", "objectives": {"cost/macs": "min"}},
            "asha needs an objective of val/ that changes during training",
        ),
        (
            {"algorithm": "pbt", "space": {"task.width": {"integer": [1, 9]}}},
            "task.width cannot change while pbt keeps",
        ),
        (
            {"algorithm": "pbt", "interval": 4},
            "interval: 4 epochs leave nothing to compare in trainings of 4: lower it",
        ),
        ({"parallel": 0}, "searches.s.parallel"),
        ({"set": {"train.workers": 2}, "parallel": 2}, "use 1 at a time"),
        ({"space": {"train.workers": {"integer": [0, 1]}}}, "train.workers cannot be searched: leave it out"),
        (
            {"space": {"task.tuning": {"uniform": [0, 1], "when": {"task.kind": "tuned"}}}},
            "task.tuning.when.task.kind: unknown searched key 'task.kind'",
        ),
    ],
)
def test_wrong_blocks_are_one_line_before_anything_starts(
    searched: Searched, changes: dict[str, Any], line: str
) -> None:
    searched.write(**changes)
    with pytest.raises(InputError) as caught:
        searched.tune()
    assert line in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (searched.project.root / ".assay/runs").exists()


@pytest.mark.thorough
@pytest.mark.usefixtures("shared_ray")
def test_who_may_resume_and_what(searched: Searched) -> None:
    searched.write(budget={"trials": 2})
    search_id = searched.tune()["search_id"]
    searched.write(budget={"trials": 3}, space={"task.x": {"uniform": [0, 0.5]}, "task.y": {"uniform": [0, 1]}})
    with pytest.raises(InputError) as caught:
        searched.tune(resume=search_id)
    assert "space.task.x.uniform was [0.0, 1.0], is [0.0, 0.5]" in str(caught.value)
    with pytest.raises(InputError, match="no run 'nonsense'"):
        searched.tune(resume="nonsense")

    searched.write(budget={"trials": 3})
    from filelock import FileLock

    with FileLock(searched.journal(search_id).with_name("lock")), pytest.raises(InputError) as caught:
        searched.tune(resume=search_id)
    assert str(caught.value) == f"search {search_id} is being worked on by another process; wait for it, or use --new"
    assert searched.tune(resume=search_id)["trials"] == 3


@pytest.mark.thorough
@pytest.mark.usefixtures("shared_ray")
def test_a_session_has_its_minutes_and_the_next_one_the_rest(searched: Searched) -> None:
    searched.write(set={"task.nap": 0.4}, budget={"trials": 40})
    first = searched.tune(minutes=0.35)
    assert first["status"] == "PAUSED"
    assert 0 < first["completed"] < 40
    ends = [event for event in searched.events(first["search_id"]) if event["event"] == "end"]
    span = ends[-1]["time"] - ends[0]["time"] + ends[0]["seconds"]
    assert sum(event["seconds"] for event in ends) > 1.4 * span  # both slots work
    assert (
        json.loads((searched.project.root / "results/searches/s/search.json").read_text())["trials"] == first["trials"]
    )
    searched.write(set={"task.nap": 0.4}, budget={"trials": first["trials"] + 1})
    second = searched.tune()
    assert (second["search_id"], second["trials"]) == (first["search_id"], first["trials"] + 1)
    assert second["repeated"] == 0


@pytest.mark.thorough
@pytest.mark.usefixtures("shared_ray")
def test_the_winner_becomes_an_experiment_for_review(searched: Searched) -> None:
    searched.write(budget={"trials": 3})
    record = searched.tune()
    before = searched.params.read_text()
    done = apply_trial(record, None, searched.project.settings)
    assert done == {"experiment": "s", "trial": record["best"]["trial"], "file": "params.yaml", "changed": True}
    after = searched.params.read_text()
    assert "# learns nothing, on purpose" in after
    changes = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    assert {change[0] for change in changes} == {" ", "+"}  # nothing that stood there is changed
    won = load_params(searched.params).experiment("s")
    assert won.task.model_dump()["x"] == record["best"]["config"]["task.x"]
    assert apply_trial(record, None, searched.project.settings)["changed"] is False
    other = next(i for i in range(3) if i != record["best"]["trial"])
    with pytest.raises(InputError, match=f"--trial {other}: not on the front"):
        apply_trial(record, other, searched.project.settings)
    assert parse_experiment(resolved(won), "x") == won


@pytest.mark.thorough
def test_ray_that_dies_is_started_again(searched: Searched) -> None:
    searched.write(set={"task.nap": 0.2}, budget={"trials": 8})
    child = start(searched.project)
    search_id = wait_for_ends(searched.project, child, 2)
    (raylet,) = [p for p in psutil.Process(child.pid).children(recursive=True) if p.name() == "raylet"]
    raylet.kill()
    assert child.wait(120) == 0, (searched.project.root / "log.txt").read_text()[-3000:]
    assert "Ray died (its servers are gone); continuing" in (searched.project.root / "log.txt").read_text()
    assert Counter(run.info.status for run in searched.trials(search_id)) == {"FINISHED": 8}
    with contextlib.suppress(psutil.NoSuchProcess):
        assert not psutil.Process(child.pid).children()


@pytest.mark.thorough
def test_a_trial_of_two_workers_goes_on_when_the_process_of_its_slot_dies(searched: Searched) -> None:
    """What it had reserved for its workers is freed; else the next attempt waits for its cores forever."""
    two = {"train.workers": 2, "train.batch_size": 4, "task.nap": 0.2}
    searched.write(set=two, budget={"trials": 1}, parallel=1)
    child = start(searched.project)
    folder = searched.project.root / ".assay/runs"
    wait_for("the first metric", lambda: list(folder.rglob("spool.jsonl")), 120)
    (slot,) = [p for p in psutil.Process(child.pid).children(recursive=True) if "ResourceTrainable" in _title(p)]
    slot.kill()
    assert child.wait(200) == 0, (searched.project.root / "log.txt").read_text()[-3000:]
    (search,) = [journal.parent.name for journal in folder.glob("*/journal.jsonl")]
    assert Counter(run.info.status for run in searched.trials(search)) == {"FINISHED": 1}


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def test_the_nightly_flow_and_the_stage_are_one_search(scheduled: Searched) -> None:
    project = scheduled.project
    scheduled.write(budget={"trials": 3})
    night = project.run(sys.executable, "-m", "pipelines", "nightly-search", "s", "--minutes", "5")
    assert "s: 3 trials (budget of 3 trials); best run " in night.stdout
    found = json.loads((project.root / "results/searches/s/search.json").read_text())
    stage = project.run("dvc", "repro", "search@s")
    assert f"nothing to search: search {found['search_id']} is finished" in stage.stderr
    assert json.loads((project.root / "results/searches/s/search.json").read_text()) == found
    assert "Stage 'search@s' didn't change, skipping" in project.run("dvc", "repro", "search@s").stdout
    trained = json.loads((project.root / "results/knobs/train.json").read_text())  # the stage needs it to compare with
    assert trained["dataset"] == found["dataset"]
