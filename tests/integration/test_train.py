"""`assay train` for real: the same bits twice, through a kill, and with two workers; one run for the same inputs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from assay.data.version import recorded_hash
from assay.errors import InputError, WorkError
from assay.tracking.tracker import Tracker
from assay.usecases.runs import list_runs
from tests.conftest import BIN, QUICK, Project

TWO = ("train.epochs=4", "train.workers=2", "train.checkpoint_seconds=0")
GAN = """
  mixture:
    task: {name: tests.support.mixture_gan, modes: 4, samples: 256}
    data: digits
    optimizer: {name: adam, lr: 2.0e-3, betas: [0.5, 0.9]}
    train: {epochs: 400, batch_size: 64, workers: 0}
"""


def runs(project: Project, experiment: str = "digits") -> list[str]:
    """The statuses of the runs of an experiment."""
    client = Tracker(project.settings)._client
    found = client.get_experiment_by_name(experiment)
    return [run.info.status for run in client.search_runs([found.experiment_id])] if found else []


def killed_while_training(project: Project, *arguments: str, metric: str, sign: int, group: bool = False) -> Path:
    """Start `assay train`, wait for `metric` and a checkpoint, send a signal; the run's folder."""
    command = [str(BIN / "assay"), "train", *arguments]
    child = subprocess.Popen(
        command, cwd=project.root, env=project.environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    folder = project.root / ".assay/runs"
    until(
        child,
        lambda: (
            any(metric in path.read_text() for path in folder.glob("*/spool.jsonl"))
            and (sign == signal.SIGINT or bool(list(folder.glob("*/checkpoints/step-*"))))
        ),
    )
    (run,) = (path.parent for path in folder.glob("*/spool.jsonl"))
    (os.killpg if group else os.kill)(child.pid, sign)
    child.communicate(timeout=90)
    return run


def until(child: subprocess.Popen[Any], reached: Callable[[], bool]) -> None:
    """Wait until a training in another process is so far."""
    limit = time.monotonic() + 120
    while not reached():
        assert child.poll() is None, child.stderr and child.stderr.read()
        assert time.monotonic() < limit
        time.sleep(0.02)


def wait_for_status(project: Project, run_id: str, status: str, seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    client = Tracker(project.settings)._client
    while client.get_run(run_id).info.status != status:
        assert time.monotonic() < limit, client.get_run(run_id).info.status
        time.sleep(0.2)


def test_same_inputs_give_the_finished_run(project: Project) -> None:
    first = project.train("digits", *QUICK)
    again = project.train("digits", *QUICK)
    assert again["run_id"] == first["run_id"]
    assert (first["trained_steps"], again["trained_steps"]) == (first["steps"], 0)
    other = project.train("digits", *QUICK, new=True)
    assert other["run_id"] != first["run_id"]
    assert other["weights_sha256"] == first["weights_sha256"]
    assert runs(project) == ["FINISHED", "FINISHED"]
    for row in list_runs("run", None, 9, project.settings)["runs"]:
        assert {name: row["metrics"][name] for name in first["metrics"]} == first["metrics"], "of the kept weights"
    seeded = project.train("digits", *QUICK, "seed=1")
    assert seeded["weights_sha256"] != first["weights_sha256"]


def test_an_emptied_store_is_not_taken_for_a_new_one(project: Project, tmp_path: Path) -> None:
    record = project.train("digits", *QUICK)
    emptied = project.copy(tmp_path / "emptied")
    for file in emptied.root.glob(".assay/mlflow.db*"):
        file.write_bytes(b"") if file.suffix == ".db" else file.unlink()
    with pytest.raises(WorkError, match=f"is empty, though .* {record['run_id']} among them: restore it"):
        emptied.train("digits", *QUICK)
    (emptied.root / ".assay/stores.json").unlink()
    assert emptied.train("digits", *QUICK)["trained_steps"] == record["steps"]


def test_a_run_carries_all_that_explains_it(project: Project) -> None:
    (project.root / "notes.py").write_text("api_token = 'abcdefgh12345'\n")
    record = project.train("digits", *QUICK)
    tracker = Tracker(project.settings)
    run = tracker.get(record["run_id"])
    tags = {name.removeprefix("assay."): value for name, value in run.data.tags.items()}
    assert tags["commit"] == project.run("git", "rev-parse", "HEAD").stdout.strip()
    assert tags["dirty"] == "true"
    assert tags["dataset_hash"] == record["dataset"]["hash"]
    assert tags["weights_sha256"] == record["weights_sha256"]
    assert run.data.params["optimizer.lr"] == "0.003"
    assert tracker._client.get_run(record["run_id"]).inputs.dataset_inputs[0].dataset.name == "digits"
    diff = tracker.read_bytes(record["run_id"], "provenance/working-tree.diff").decode()
    assert "notes.py" in diff
    assert "abcdefgh12345" not in diff
    names = {item.path for item in tracker._client.list_artifacts(record["run_id"], "pictures")}
    assert names == {"pictures/curves.png", "pictures/curves.csv"}
    history = tracker._client.get_metric_history(record["run_id"], "val/accuracy")
    assert [point.step for point in history] == [19, 38, 57]


@pytest.mark.parametrize("metric", [pytest.param("train/loss", marks=pytest.mark.thorough), "val/accuracy"])
def test_killed_and_resumed_is_bit_exact(project: Project, metric: str) -> None:
    run = killed_while_training(project, "digits", *_set(QUICK), metric=metric, sign=signal.SIGKILL)
    wait_for_status(project, run.name, "KILLED")
    (project.root / "notes.py").write_text("# changes no weight\n")
    resumed = project.train("digits", *QUICK)
    assert resumed["run_id"] == run.name
    assert resumed["resumed_from"] is not None
    assert 0 < resumed["trained_steps"] < resumed["steps"]
    assert [session["first_step"] for session in resumed["sessions"]] == [0, resumed["resumed_from"]]
    differ = "its sessions differ in uncommitted changes: "
    assert [line for line in resumed["sessions_differ"] if line.startswith(differ)]
    diff = Tracker(project.settings).read_bytes(run.name, "provenance/sessions/0002/working-tree.diff")
    assert b"changes no weight" in diff
    whole = project.train("digits", *QUICK, new=True)
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    client = Tracker(project.settings)._client
    for name in ("train/loss", "val/accuracy", "val/loss"):
        one, two = (client.get_metric_history(r["run_id"], name) for r in (resumed, whole))
        assert [point.step for point in one] == [point.step for point in two]
        assert [point.value for point in one] == pytest.approx([point.value for point in two], abs=1e-12)


def test_ctrl_c_saves_and_the_same_command_goes_on(project: Project) -> None:
    run = killed_while_training(
        project, "digits", *_set(("train.epochs=20", "train.workers=0")), metric="train/loss", sign=signal.SIGINT
    )
    assert runs(project) == ["KILLED"]
    assert list((run / "checkpoints").glob("step-*"))
    record = project.train("digits", "train.epochs=20", "train.workers=0")
    assert record["run_id"] == run.name
    assert record["resumed_from"] > 0


@pytest.mark.thorough
def test_two_workers_twice_and_killed(project: Project, shared_ray: None, tmp_path: Path) -> None:
    other = project.copy(tmp_path / "other")
    first = other.train("digits", *TWO)
    second = other.train("digits", *TWO, new=True)
    assert first["weights_sha256"] == second["weights_sha256"]
    run = killed_while_training(project, "digits", *_set(TWO), metric="val/accuracy", sign=signal.SIGKILL, group=True)
    wait_for_status(project, run.name, "KILLED")
    resumed = project.train("digits", *TWO)
    assert resumed["run_id"] == run.name
    assert resumed["resumed_from"] is not None
    assert resumed["weights_sha256"] == first["weights_sha256"]


def test_ray_listens_on_loopback_only(shared_ray: None) -> None:
    listening = []
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray's idle workers come and go
            opened = process.net_connections("inet")
            listening += [c.laddr.ip for c in opened if c.status == psutil.CONN_LISTEN]
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1", "::1"}


def test_a_dead_worker_is_replaced(project: Project, shared_ray: None) -> None:
    """kill -9 of one of two workers: the same call ends with the same weights as an untouched run."""
    assignments = ("train.epochs=8", "train.workers=2", "train.checkpoint_seconds=0")

    def assassin() -> None:
        spool = project.root / ".assay/runs"
        while not any("val/accuracy" in path.read_text() for path in spool.glob("*/spool.jsonl")):
            time.sleep(0.02)
        ours = psutil.Process().children(recursive=True)  # other tests' trainings run alongside
        workers = [p for p in ours if p.is_running() and "RayTrainWorker" in " ".join(p.cmdline())]
        workers[-1].kill()

    thread = threading.Thread(target=assassin)
    thread.start()
    record = project.train("digits", *assignments)
    thread.join()
    assert record["resumed_from"] is not None
    assert record["weights_sha256"] == project.train("digits", *assignments, new=True)["weights_sha256"]


@pytest.mark.thorough
def test_two_networks_and_two_optimizers(project: Project, shared_ray: None) -> None:
    with (project.root / "params.yaml").open("a") as file:
        file.write(GAN)
    record = project.train("mixture")
    assert record["metrics"]["val/coverage"] == 1.0
    assert record["metrics"]["val/near"] > 0.8
    wide = ("train.workers=2", "train.epochs=4")
    assert (
        project.train("mixture", *wide)["weights_sha256"] == project.train("mixture", *wide, new=True)["weights_sha256"]
    )


def test_a_run_is_not_resumed_as_something_else(project: Project) -> None:
    run = killed_while_training(project, "digits", *_set(QUICK), metric="train/loss", sign=signal.SIGKILL)
    source = project.root / "params.yaml"
    source.write_text(source.read_text().replace("test: 0.2}\n    seed: 0", "test: 0.2}\n    seed: 3"))
    project.run("dvc", "repro", "-q", "data@digits")
    resumed = project.train("digits", resume=run.name)  # on its own version, which is not the recorded one any more
    assert resumed["run_id"] == run.name
    assert resumed["dataset"]["hash"] != recorded_hash(project.root, "digits")
    with pytest.raises(InputError, match="leave out --set"):
        project.train("digits", "seed=1", resume=run.name)


def test_a_training_without_workers_joins_no_cluster(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end would end the training, 64 s later and unsaved."""
    monkeypatch.setenv("ASSAY_RAY_ADDRESS", "127.0.0.1:1")
    assert project.train("digits", *QUICK)["trained_steps"] > 0


def test_one_process_at_a_time(project: Project) -> None:
    slow = ("train.epochs=200", "train.workers=0")
    child = subprocess.Popen(
        [str(BIN / "assay"), "train", "digits", *_set(slow)], cwd=project.root, env=project.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not list(project.root.glob(".assay/runs/*/spool.jsonl")):
        time.sleep(0.05)
    with pytest.raises(InputError, match="being trained by another process"):
        project.train("digits", *slow)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 130


def test_a_diverging_run_says_so(project: Project) -> None:
    with pytest.raises(WorkError, match=r"became (nan|inf)"):
        project.train("digits", *QUICK, "optimizer.lr=1.0e+30", "optimizer.name=sgd", "optimizer.warmup=0.0")
    assert runs(project) == ["FAILED"]


@pytest.mark.thorough
def test_a_damaged_checkpoint_is_named_and_passed_over(project: Project) -> None:
    run = killed_while_training(project, "digits", *_set(QUICK), metric="val/accuracy", sign=signal.SIGKILL)
    newest = max((run / "checkpoints").glob("step-*"))
    weights = newest / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    resumed = project.verb("train", "digits", *_set(QUICK), "--json")
    assert "does not match its manifest" in resumed.stderr
    weights_sha256 = json.loads(resumed.stdout)["weights_sha256"]
    assert weights_sha256 == project.train("digits", *QUICK, new=True)["weights_sha256"]


def test_results_are_written_for_dvc_only_by_the_plain_command(project: Project) -> None:
    project.train("digits", *QUICK)
    assert not (project.root / "results").exists()
    text = (project.root / "params.yaml").read_text()
    (project.root / "params.yaml").write_text(
        text.replace("epochs: 20", "epochs: 1").replace("workers: 2", "workers: 0")
    )
    record = project.train("digits")
    written = json.loads((project.root / "results/digits/train.json").read_text())
    assert written["run_id"] == record["run_id"]
    assert (project.root / "results/digits/curves.csv").read_text().startswith("metric,step,value\n")


def _set(assignments: tuple[str, ...]) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]
