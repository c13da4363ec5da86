"""The flow and `dvc repro` run the same stages; DVC's own commands work; the second time nothing happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from assay.tracking.tracker import Tracker
from benchmarks.common import set_value
from tests.conftest import GIT, Project
from tests.support.servers import wait_for

FLOW = (sys.executable, "-m", "pipelines", "train-and-promote", "digits")


def quicken(project: Project) -> None:
    path = project.root / "params.yaml"
    text = path.read_text().replace("epochs: 20", "epochs: 2").replace("workers: 2", "workers: 0")
    path.write_text(text.replace("test/accuracy: 0.98", "test/accuracy: 0.3"))


def counts(project: Project) -> tuple[int, int]:
    """(runs, versions)."""
    client = Tracker(project.settings)._client
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    return len(client.search_runs([experiment.experiment_id])), len(client.search_model_versions("name = 'digits'"))


@pytest.fixture(scope="module")
def done(
    template: Project, prefect_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, subprocess.CompletedProcess[str]]:
    """A project whose flow has run once, and what it printed; all of it is committed."""
    project = template.copy(tmp_path_factory.mktemp("pipeline") / "p")
    shutil.copytree(prefect_home, project.prefect_home)
    quicken(project)
    flow = project.run(*FLOW)
    project.run("git", "add", "params.yaml", "dvc.lock")
    project.run(*GIT, "commit", "-qm", "run")
    return project, flow


def test_the_flow_makes_a_champion_and_then_nothing(done: tuple[Project, subprocess.CompletedProcess[str]]) -> None:
    project, first = done
    assert "alias champion" in first.stdout
    assert counts(project) == (1, 1)
    assert "Data and pipelines are up to date" in project.run("dvc", "status").stdout
    again = project.run(*FLOW)
    assert "0 training steps, 0 new runs, 0 new versions" in " ".join(again.stdout.replace("│", " ").split())
    assert counts(project) == (1, 1)
    by_hand = project.run("dvc", "repro", "register@digits")
    assert "didn't change, skipping" in by_hand.stdout
    assert counts(project) == (1, 1)


@pytest.mark.thorough
def test_a_failed_stage_fails_the_flow_with_its_line(flow_project: Project) -> None:
    project = flow_project
    quicken(project)
    text = (project.root / "params.yaml").read_text().replace("lr: 3.0e-3", "lr: 1.0e+30").replace("adamw", "sgd")
    (project.root / "params.yaml").write_text(text)
    done = project.run(sys.executable, "-m", "pipelines", "train-and-promote", "digits", code=1)
    assert "became" in done.stderr
    assert "error: train@digits: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_to_all_processes_of_a_flow_ends_it_as_told(flow_project: Project, number: signal.Signals) -> None:
    project = flow_project
    quicken(project)
    set_value(project.root, "experiments.digits.train.epochs", 10_000)
    said = project.root / ".assay/said.txt"
    with said.open("w") as file:
        child = subprocess.Popen(
            FLOW, cwd=project.root, env=project.environment, stdout=file, stderr=file, start_new_session=True
        )
    with child:
        wait_for("the training", lambda: "step " in said.read_text() or child.poll() is not None)
        os.killpg(child.pid, number)
        assert child.wait(60) in (130, -number), said.read_text()
    assert "Traceback" not in said.read_text()
    with closing(sqlite3.connect(project.prefect_home / "prefect.db")) as store:
        states = store.execute("SELECT state_type FROM flow_run ORDER BY created DESC").fetchall()
    assert states[0] == ("CRASHED",)
    (run,) = Tracker(project.settings).newest("run", "digits", 9)
    assert run.info.status == "KILLED"


def test_dvc_commands_work_as_its_users_expect(
    done: tuple[Project, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    project = done[0].copy(tmp_path / "p")
    record = json.loads((project.root / "results/digits/train.json").read_text())
    assert (project.root / "results/digits/train.json").stat().st_size < 4096

    metrics = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)
    shown = metrics[""]["data"]["results/digits/metrics.json"]["data"]
    assert (
        shown["test/accuracy"]
        == json.loads((project.root / "results/digits/metrics.json").read_text())["test/accuracy"]
    )
    page = project.run("dvc", "plots", "show").stdout
    assert page.strip().endswith("index.html")

    project.run("dvc", "exp", "run", "--set-param", "experiments.digits.optimizer.lr=0.01", "train@digits")
    changed = json.loads(project.run("dvc", "params", "diff", "--json").stdout)
    (lr,) = changed["params.yaml"].values()
    assert (lr["old"], lr["new"]) == (0.003, 0.01)
    other = json.loads((project.root / "results/digits/train.json").read_text())
    assert other["run_id"] != record["run_id"]
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout")
    assert json.loads((project.root / "results/digits/train.json").read_text()) == record
    assert "up to date" in project.run("dvc", "status").stdout


def test_dvc_never_repeats_what_the_registry_said_before(
    done: tuple[Project, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    project = done[0].copy(tmp_path / "p")

    def registered() -> tuple[str, str | None]:
        """(version, alias) as `results/` has them, which must be the registry's."""
        project.run("dvc", "repro", "register@digits")
        model = json.loads((project.root / "results/digits/model.json").read_text())
        holders = Tracker(project.settings)._client.get_registered_model("digits").aliases
        assert (model["alias"] == "champion") == (str(holders["champion"]) == model["version"])
        return model["version"], model["alias"]

    set_value(project.root, "experiments.digits.optimizer.lr", 0.01)
    set_value(project.root, "experiments.digits.gate.tolerance", 1.0)
    assert registered() == ("2", "champion")
    project.run("assay", "rollback", "digits")
    assert registered() == ("2", None), "DVC has a result of this stage with the same inputs: it is out of date"
    project.run("git", "checkout", "-q", "params.yaml")
    assert registered() == ("1", "champion")


@pytest.mark.thorough
def test_a_changed_gate_costs_no_training(project: Project) -> None:
    quicken(project)
    project.run("dvc", "repro", "register@digits")
    path = project.root / "params.yaml"
    path.write_text(path.read_text().replace("test/accuracy: 0.3", "test/accuracy: 0.31"))
    done = project.run("dvc", "repro", "register@digits")
    assert "nothing to train" in done.stderr
    assert counts(project) == (1, 1)
