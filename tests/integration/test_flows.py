"""Flows on a real server and worker: what they do, and what is left when something dies."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from sklearn.datasets import load_digits

from assay.settings import Settings
from assay.tracking.tracker import Tracker
from tests.conftest import Project
from tests.support.flows import Site, site
from tests.support.servers import wait_for

SLOW = """
  slow:
    task: {name: classification, architecture: small_cnn, image_size: 8}
    data: digits
    optimizer: {lr: 3.0e-3}
    train: {epochs: 6, batch_size: 16, workers: 0, checkpoint_seconds: 0.5}
"""
SCHEDULES = """
schedules:
  slow: {flow: train-and-promote, experiment: slow, cron: "0 3 * * *", timezone: Europe/Berlin}
  shapes: {flow: retrain, experiment: shapes, interval: 1 week}
  ask: {flow: promote, model: shapes, approval: true, interval: 1 week}
"""


OWN_SERVER = """
import time

from assay.settings import Settings
from pipelines.runtime import workspace
from pipelines.runtime.server import serving

let_go = workspace._let_go
workspace._let_go = lambda watchdog: (let_go(watchdog), time.sleep(1))  # what ends a server has done so
with serving(Settings(), "a flow", print):
    from prefect import flow, get_run_logger

    @flow
    def says():
        get_run_logger().info("said to the server")

    says()
"""


class Listener(ThreadingHTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    server = Listener()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def write_images(folder: Path, first: int, count: int) -> None:
    """Some of the shipped digits 0, 1 and 2 as an image folder."""
    from PIL import Image

    digits = load_digits()
    for label in range(3):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        for index in (digits.target == label).nonzero()[0][first : first + count]:
            pixels = (digits.images[index] * 15.9375).astype("uint8")
            Image.fromarray(pixels).save(folder / str(label) / f"{index}.png")


@pytest.fixture(scope="module")
def here(
    template: Project, prefect_home: Path, tmp_path_factory: pytest.TempPathFactory, listener: Listener
) -> Iterator[Site]:
    """A project with a long experiment, a folder dataset and schedules, on a server with a worker."""
    project = template.copy(tmp_path_factory.mktemp("flows") / "p")
    root = project.root
    shutil.copytree(prefect_home, project.prefect_home)
    params = root / "params.yaml"
    write_images(root / "raw", 0, 30)
    project.assay("data", "add", "shapes", "raw")
    params.write_text(params.read_text().replace("experiments:\n", f"experiments:{SLOW}", 1) + SCHEDULES)
    from benchmarks.common import set_value

    set_value(root, "experiments.shapes.task", {"name": "classification", "architecture": "small_cnn", "image_size": 8})
    set_value(root, "experiments.shapes.train", {"epochs": 3, "batch_size": 16, "workers": 0})
    set_value(root, "experiments.shapes.gate", {"min": {"test/accuracy": 0.2}})
    hook = f"http://127.0.0.1:{listener.server_port}/told?token=a-secret-of-tests"
    with site(root, {**project.environment, "ASSAY_WEBHOOK": hook}) as services:
        schedule(services, "apply")
        yield services


def schedule(here: Site, *words: str) -> dict[str, Any]:
    """An `assay schedule` verb on the site's server."""
    command = ["assay", "schedule", *words, "--json"]
    done = subprocess.run(command, cwd=here.root, env=here.environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def start(here: Site, name: str) -> str:
    """Start a run of a schedule by the server's API: what `assay schedule run` does, without its start-up."""
    return str(here.api("POST", f"/deployments/{deployment(here, name)['id']}/create_flow_run", {})["id"])


def deployment(here: Site, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = here.api("POST", "/deployments/filter", {})
    return next(one for one in found if one["name"] == name)


def training(here: Site) -> psutil.Process | None:
    """The process that trains in the site."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[-2:] == ["train", "slow"] and "python" in words[0] and _in(process, here.root):
            return process
    return None


def _in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()) == folder
    except psutil.Error:
        return False


def checkpoint(here: Site) -> int:
    """The newest step that is saved of a run that is not finished."""
    return max((int(p.name[5:]) for p in here.root.glob(".assay/runs/*/checkpoints/step-*")), default=0)


def held_beyond(here: Site, step: int) -> tuple[psutil.Process, int]:
    """Stop the training's clock once it has saved a step after this one, so that a fast machine cannot end it."""
    saved = wait_for(f"a checkpoint beyond step {step}", lambda: checkpoint(here) > step and checkpoint(here))
    process = training(here)
    assert process is not None
    process.suspend()
    return process, int(saved)


def told_to_stop(process: psutil.Process) -> bool:
    """Whether SIGINT or SIGTERM waits for a process that is held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    pending = int(re.search(r"ShdPnd:\s+(\w+)", status).group(1), 16)
    return bool(pending & (1 << (signal.SIGINT - 1) | 1 << (signal.SIGTERM - 1)))


def cancel(here: Site, run: str, process: psutil.Process) -> dict[str, Any]:
    """Cancel a run whose training is held, and let it go on when it has been told."""
    here.set_state(run, "CANCELLING")
    wait_for("the signal", lambda: told_to_stop(process))
    process.resume()
    return here.wait_state(run, "CANCELLED")


@pytest.mark.thorough
def test_a_training_that_is_cancelled_orphaned_and_killed_ends_as_if_nothing_had_happened(
    here: Site, listener: Listener
) -> None:
    project = Project(here.root)
    run = start(here, "slow")
    process, step = held_beyond(here, 0)
    here.end(here.worker, signal.SIGKILL)  # the flow goes on, and the next worker finds it
    here.end(here.server, signal.SIGKILL)
    here.start_server()
    here.start_worker()
    assert training(here) is not None
    cancel(here, run, process)
    assert training(here) is None
    assert checkpoint(here) >= step

    run = start(here, "slow")
    process, step = held_beyond(here, checkpoint(here))
    ended = cancel(here, run, process)  # now by the worker that started it
    assert "cancelled" in ended["state"]["message"]
    assert training(here) is None
    assert checkpoint(here) >= step

    run = start(here, "slow")
    wait_for("the training", lambda: training(here))
    flow = json.loads((here.root / f".assay/flows/{run}.json").read_text())["owner"]["pid"]
    here.end(here.worker, signal.SIGKILL)
    os.kill(flow, signal.SIGKILL)
    here.start_worker()
    crashed = here.wait_state(run, "CRASHED", seconds=60)
    assert "run it again to continue where it stopped" in crashed["state"]["message"]
    wait_for("the training's end", lambda: training(here) is None)
    told = wait_for("the webhook", lambda: [word for word in listener.heard if word["flow_run"] == run])
    assert [word["event"] for word in told] == ["crashed"]
    assert told[0]["experiment"] == "slow"

    run = start(here, "slow")
    done = here.wait_state(run, "COMPLETED", "FAILED", "CRASHED", seconds=240)
    assert done["state_type"] == "COMPLETED", here.flow_log(run)
    resumed = json.loads((here.root / "results/slow/train.json").read_text())
    steps, trained = re.search(r"steps +(\d+) \((\d+) in this session\)", here.flow_log(run)).groups()
    assert int(trained) < int(steps)
    assert project.assay("train", "slow", "--new")["weights_sha256"] == resumed["weights_sha256"]


def test_retrain_takes_new_data_and_says_what_became_of_them(here: Site, listener: Listener) -> None:
    run = str(schedule(here, "run", "shapes")["flow_run"])
    first = here.wait_state(run, "COMPLETED", "FAILED", "CRASHED", seconds=240)
    assert first["state"]["message"].startswith("promoted: shapes version 1"), here.flow_log(first["id"])
    again = here.wait_state(start(here, "shapes"), "COMPLETED", "FAILED", seconds=240)
    assert again["state"]["message"].startswith("nothing new: shapes has not changed")
    before = (here.root / "params.yaml").read_text()

    write_images(here.root / "raw", 30, 10)
    (here.root / "raw/0/empty.png").touch()
    newer = here.wait_state(start(here, "shapes"), "COMPLETED", "FAILED", "CRASHED", seconds=240)
    assert "a new version of shapes" in newer["state"]["message"], here.flow_log(newer["id"])
    assert newer["state"]["message"].split(":")[0] in ("promoted", "refused")
    assert "rejected: 0/empty.png: " in here.flow_log(newer["id"])
    assert newer["name"].startswith("retrain-shapes-20")
    assert (here.root / "params.yaml").read_text() != before
    promoted = [word for word in listener.heard if word["event"] == "promoted" and word["experiment"] == "shapes"]
    assert promoted[0]["run_id"]
    artifacts = here.api("POST", "/artifacts/filter", {"artifacts": {"key": {"any_": ["shapes-report"]}}})
    report = max(artifacts, key=lambda artifact: artifact["created"])["data"]
    assert "changed, and to be committed: " in report
    assert "data:image/png;base64," in report
    everything = "".join(p.read_text(errors="replace") for p in here.root.glob(".assay/logs/flows/*.log"))
    assert "a-secret-of-tests" not in everything + here.log("worker") + report


def test_a_person_is_asked_and_nothing_is_held_meanwhile(here: Site) -> None:
    if not (here.root / "results/shapes/model.json").exists():
        here.wait_state(start(here, "shapes"), "COMPLETED", seconds=240)
    gate = ("promoted: shapes version", "refused: shapes version")
    client = Tracker(Settings(project=here.root))._client
    for answer, said in ((False, ("refused by the owner: not on a Friday",)), (True, gate)):
        run = start(here, "ask")
        asked = here.wait_state(run, "Suspended")
        wait_for("the process's end", lambda: not list(here.root.glob(".assay/flows/*.json")))
        assert asked["state"]["state_details"]["run_input_keyset"]
        fixed = here.api("GET", f"/flow_runs/{asked['id']}/input/chosen")
        assert "test/accuracy" in fixed["metrics"]
        newest = client.get_model_version("shapes", fixed["version"])
        later = client.create_model_version("shapes", newest.source, newest.run_id)  # while the person thinks
        person = {"approve": answer, "by": "the owner", "reason": "not on a Friday"}
        answered = here.api("POST", f"/flow_runs/{asked['id']}/resume", {"run_input": person})
        assert answered["status"] == "ACCEPT", answered
        done = here.wait_state(run, "COMPLETED", "FAILED", "CRASHED")
        assert done["state"]["message"].startswith(said), here.flow_log(run)
        assert not answer or f"shapes version {fixed['version']}" in done["state"]["message"]
        client.delete_model_version("shapes", later.version)


@pytest.mark.thorough
def test_applying_is_idempotent_keeps_a_pause_and_removes_what_is_gone(here: Site) -> None:
    params = here.root / "params.yaml"
    text = params.read_text()
    ids = {d["name"]: d["id"] for d in here.api("POST", "/deployments/filter", {})}
    assert set(schedule(here, "apply")["applied"].values()) == {"unchanged"}
    assert schedule(here, "pause", "slow")["paused"] is True
    params.write_text(text.replace("0 3 * * *", "30 3 * * *").replace("  ask:", "  question:"))
    done = schedule(here, "apply")["applied"]
    assert (done["slow"], done["question"], done["ask"]) == ("updated", "created", "deleted")
    after = {d["name"]: d for d in here.api("POST", "/deployments/filter", {})}
    assert set(after) == {"slow", "shapes", "question"}
    assert (after["slow"]["id"], after["slow"]["paused"]) == (ids["slow"], True)
    params.write_text(text)
    schedule(here, "apply")
    assert schedule(here, "resume", "slow")["paused"] is False
    rows = {row["name"]: row for row in schedule(here, "list")["schedules"]}
    assert rows["slow"]["applied"] is True
    assert rows["slow"]["next"][0].split(" ")[1][:5] == "03:00"


@pytest.mark.thorough
def test_of_late_runs_only_the_newest_is_run(here: Site) -> None:
    here.end(here.worker)
    shapes = deployment(here, "shapes")["id"]
    late = []
    for minute in range(3):
        body = {"state": {"type": "SCHEDULED", "state_details": {"scheduled_time": f"2026-01-01T00:0{minute}:00Z"}}}
        late.append(here.api("POST", f"/deployments/{shapes}/create_flow_run", body)["id"])
    with_database(here, f"UPDATE flow_run SET auto_scheduled = 1 WHERE id IN ({', '.join('?' * 3)})", late)
    here.start_worker()
    ended = [here.wait_state(run, "COMPLETED", "FAILED", "CRASHED", seconds=240) for run in late]
    messages = [run["state"]["message"] for run in ended]
    assert ["skipped: a later run" in message for message in messages] == [True, True, False]


def with_database(here: Site, statement: str, ids: list[str]) -> None:
    """The API has no way to make a run look as if the scheduler had made it."""
    import uuid

    with sqlite3.connect(here.prefect_home / "prefect.db", timeout=30) as database:
        changed = database.execute(statement, [str(uuid.UUID(name)) for name in ids]).rowcount
    assert changed == len(ids)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "no Prefect server answers at http://127.0.0.1:9/api"),
        ({"PREFECT_API_AUTH_STRING": "assay:wrong"}, "PREFECT_API_AUTH_STRING: the Prefect server at"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_line(here: Site, changes: dict[str, str], line: str) -> None:
    for words in (["-m", "pipelines", "schedule", "apply"], ["-m", "pipelines", "worker"]):
        done = subprocess.run(
            [sys.executable, *words], cwd=here.root, env={**here.environment, **changes}, capture_output=True, text=True
        )
        assert done.returncode in (1, 2)
        assert done.stderr.startswith(f"error: {line}")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.thorough
def test_flows_of_their_own_take_turns_in_a_checkout(flow_project: Project) -> None:
    """Each with a server of its own, on one database and one workspace."""
    project = flow_project
    command = [sys.executable, "-m", "pipelines", "retrain", "digits"]
    quick = (project.root / "params.yaml").read_text().replace("epochs: 20", "epochs: 1")
    (project.root / "params.yaml").write_text(
        quick.replace("workers: 2", "workers: 0").replace("test/accuracy: 0.98", "test/accuracy: 0.1")
    )
    flows = [
        subprocess.Popen(command, cwd=project.root, env=project.environment, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]  # fmt: skip
    ended = [(flow.communicate(timeout=240), flow.returncode) for flow in flows]
    assert [code for _, code in ended] == [0, 0, 0], ended
    assert sum("waiting for the workspace: retrain-digits" in err for (_, err), _ in ended) == 2
    assert sum("nothing new" in out for (out, _), _ in ended) == 2
    assert not any("locked" in err for (_, err), _ in ended)


@pytest.mark.thorough
def test_a_server_of_its_own_hears_the_last_word(tmp_path: Path) -> None:
    """It was ended too early: the last lines were lost, and the flow tried for a minute to send them."""
    project = Project(tmp_path)
    done = project.run(sys.executable, "-c", OWN_SERVER)
    assert "Stopping temporary server" in done.stderr
    assert "Error logging to API" not in done.stderr
    with sqlite3.connect(project.prefect_home / "prefect.db", timeout=30) as database:
        told = {message for (message,) in database.execute("select message from log")}
    assert "said to the server" in told
    assert any(message.startswith("Finished in state Completed") for message in told)


def test_a_schedule_without_a_server(project: Project) -> None:
    text = (project.root / "params.yaml").read_text()
    (project.root / "params.yaml").write_text(
        text + "\nschedules:\n  nightly: {flow: retrain, experiment: digits, interval: 1 day}\n"
    )
    (row,) = project.assay("schedule", "list", apart=True)["schedules"]
    assert (row["applied"], len(row["next"])) == (None, 3)
    assert project.refused("schedule", "apply", code=1, apart=True) == "error: no Prefect server: run `assay up`\n"
    assert "unknown schedule 'nighty'; did you mean 'nightly'?" in project.refused("schedule", "pause", "nighty")
