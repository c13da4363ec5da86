"""Jobs on a cluster: a real head on loopback with a token, a real upload, real trainings."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from typer.main import get_command

from assay.cli import jobs
from assay.cli.main import app
from assay.config.experiment import override
from assay.config.params import load_params
from assay.data.dataset import open_dataset
from assay.errors import AssayError, InputError, Unavailable, WorkError
from assay.submit.follow import Follower, result_of
from assay.submit.package import pack
from assay.submit.ray_jobs import Cluster, NewJob
from assay.submit.submit import Command, submit
from assay.tracking.provenance import collect
from assay.tracking.tracker import Tracker
from assay.usecases.helpers.results import ExperimentResults
from tests.conftest import BIN, GIT, Project
from tests.support.ray_head import HOST, Head, ray_head
from tests.support.servers import answering, free_port, wait_for
from tests.support.wire import Wire

SECONDS = 90.0
LONG = ("--set", "train.epochs=400", "--set", "train.checkpoint_seconds=0", "--workers", "0")
SAID = (
    "commit",
    "dirty",
    "diff_sha256",
    "diff_redacted",
    "code_sha256",
    "config_sha256",
    "fingerprint",
    "dataset_hash",
)


def parsed(*words: str) -> Command:
    return jobs.parse_command(get_command(app), list(words))


@pytest.fixture(scope="module")
def team(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The digits in a project whose data are in a remote that others reach."""
    folder = tmp_path_factory.mktemp("team")
    project = template.copy(folder / "p")
    project.run("dvc", "remote", "add", "-q", "-d", "store", str(folder / "store"))
    project.run("dvc", "push", "-q", "data@digits")
    project.run(*GIT, "commit", "-qam", "a remote")
    return project


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with ray_head({**os.environ, "ASSAY_DATA_CACHE": str(tmp_path_factory.mktemp("cache"))}) as head:
        yield head


@pytest.fixture
def cluster(head: Head, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for name, value in head.variables.items():
        monkeypatch.setenv(name, value)
    return Cluster(head.address)


@pytest.fixture
def mine(team: Project, tmp_path: Path) -> Project:
    """A checkout of one's own, whose stores are the cluster's."""
    return team.copy(tmp_path / "p")


def run_script(cluster: Cluster, project: Project, script: str, job_id: str) -> None:
    """A job that is a plain Python file of the package."""
    (project.root / "script.py").write_text(script)
    package = pack(project.root)
    for archive in (package.project, package.code):
        cluster.upload(archive)
    job = NewJob(job_id, "exec python script.py", "train digits", "", package.project.uri, package.code.uri)
    cluster.submit(job)


def test_a_job_does_what_the_command_does_here(
    cluster: Cluster, head: Head, mine: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine.root / "notes.py").write_text("api_token = 'abcdefgh12345'\n")
    words = ("train", "digits", "--set", "train.epochs=2", "--workers", "0")
    record = mine.assay("submit", "--address", head.address, "--", *words)
    run = Tracker(mine.settings).get(record["run_id"])
    assert record.pop("job_id").startswith("assay-train-digits-")
    assert record == Tracker(mine.settings).record(record["run_id"])
    config = override(
        load_params(mine.root / "params.yaml").experiment("digits"), ["train.epochs=2", "train.workers=0"]
    )
    here = collect(mine.root, "digits", config, open_dataset(mine.root, "digits", mine.root / "data/digits"), {})
    assert {name: run.data.tags[f"assay.{name}"] for name in SAID} == {name: here.tags[name] for name in SAID}
    assert here.tags["dirty"] == here.tags["diff_redacted"] == "true"
    diff = Tracker(mine.settings).read_bytes(record["run_id"], "provenance/working-tree.diff").decode()
    assert diff == here.diff
    assert "abcdefgh12345" not in diff
    before = cluster.list()
    monkeypatch.setenv("ASSAY_CLUSTER", head.address)
    assert mine.assay(*words) == {**record, "trained_steps": 0}  # what is finished needs no job
    assert cluster.list() == before


@pytest.mark.thorough
def test_workers_run_the_code_of_the_package(cluster: Cluster, head: Head, mine: Project) -> None:
    """Not what is installed on the node: a name that only this checkout's Assay has, seen by a task on a worker."""
    with (mine.root / "platform/assay/__init__.py").open("a") as file:
        file.write("MARK = 'of the checkout'\n")
    (mine.root / "own.py").write_text("MARK = 'of the project'\n")
    (mine.root / "script.py").write_text(
        "import ray\n"
        "ray.init('auto', log_to_driver=False)\n"
        "def marks():\n"
        "    import assay, own, os\n"
        "    return f'{assay.MARK}, {own.MARK}, {sorted(os.listdir())[-1]}'\n"
        "print('driver:', marks())\n"
        "print('worker:', ray.get(ray.remote(marks).remote()))\n"
    )
    program = (
        "import sys; from tests.integration.test_submit import *; c = Cluster(sys.argv[1]); p = pack(Path.cwd());"
        "[c.upload(a) for a in (p.project, p.code)];"
        "c.submit(NewJob('code', 'exec python script.py', 'train digits', '', p.project.uri, p.code.uri))"
    )
    path = os.pathsep.join((str(mine.root / "platform"), mine.environment["PYTHONPATH"]))
    environment = {**mine.environment, "PYTHONPATH": path}
    subprocess.run(["python", "-c", program, head.address], cwd=mine.root, env=environment, check=True)
    wait_for("the end", lambda: not cluster.info("code").open, SECONDS)
    log = cluster.log("code")
    for where in ("driver", "worker"):
        assert f"{where}: of the checkout, of the project, script.py" in log


@pytest.mark.thorough
def test_a_cut_connection_loses_no_line_and_repeats_none(
    cluster: Cluster, head: Head, mine: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "import time\nfor n in range(60): print('line', n, flush=True); time.sleep(0.1)\n"
    run_script(cluster, mine, lines, "lines")
    wire, shown, said, whole = Wire(head.port), [], [], []
    through = Cluster(f"http://{HOST}:{wire.port}")
    read = through.log
    monkeypatch.setattr(through, "log", lambda job_id: whole.append(text := read(job_id)) or text)
    follower = Follower(through, "lines", shown.append, said.append)
    thread = threading.Thread(target=follower.to_the_end)
    thread.start()
    wait_for("line 5", lambda: "line 5" in shown, SECONDS)
    with wire.cut():
        wait_for("the cut", lambda: any("trying again" in line for line in said), SECONDS)
        wait_for("line 50", lambda: "line 50" in cluster.log("lines"), SECONDS)  # the job goes on
    thread.join(60)
    wire.listener.close()
    assert [line for line in shown if line.startswith("line")] == [f"line {n}" for n in range(60)]
    assert len([text for text in whole if text]) <= 4  # at first, around the cut, at the end; else it is streamed
    assert said[-1] == "connected again"
    assert len(said) == 3
    assert "assay jobs attach lines" in said[1]
    again: list[str] = []
    Follower(cluster, "lines", again.append, said.append).to_the_end()
    assert again == shown


def test_jobs_are_listed_read_and_stopped(cluster: Cluster, head: Head, mine: Project) -> None:
    saving = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(130)))\n"
        "print('working', flush=True)\n"
        "time.sleep(600)\n"
    )
    run_script(cluster, mine, saving, "works")
    wait_for("the job", lambda: "working" in cluster.log("works"), SECONDS)
    at = ("--address", head.address)
    listed = mine.assay("jobs", "list", *at)["jobs"]
    assert (listed[0]["job_id"], listed[0]["status"], listed[0]["command"]) == ("works", "RUNNING", "train digits")
    assert [row["started"] for row in listed] == sorted((row["started"] for row in listed), reverse=True)
    assert mine.assay("jobs", "stop", *at, "works")["status"] == "STOPPED"
    assert mine.assay("jobs", "logs", *at, "works")["lines"][-2:] == ["working", "saved"]
    attached = mine.verb("jobs", "attach", *at, "works", code=130)
    assert "working\nsaved\n" in attached.stderr
    told = mine.refused("jobs", "attach", *at, "wroks")
    assert told.startswith("error: unknown job 'wroks'; did you mean 'works'?")
    assert len(told.splitlines()) == 1


@pytest.mark.thorough
def test_the_command_here_stands_for_the_job(cluster: Cluster, head: Head, mine: Project) -> None:
    """Killed, it is followed again; stopped by a signal, it stops the job; then it goes on, with its outputs here."""
    path = mine.root / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 20", "epochs: 60").replace("workers: 2", "workers: 0"))
    before = len(cluster.list())
    one = start(mine, head)

    def trains() -> bool:
        return len(cluster.list()) > before and "train/loss" in cluster.log(cluster.list()[0].job_id)

    wait_for("the training", trains, SECONDS)
    job = cluster.list()[0].job_id
    one.kill()
    one.communicate()
    two = start(mine, head)
    assert two.stderr is not None
    assert two.stderr.readline() == f"job {job} is doing this already; following it\n"
    two.send_signal(signal.SIGTERM)
    told = two.communicate(timeout=90)[1]
    assert two.returncode == 130
    assert "saving a checkpoint" in told
    assert cluster.info(job).status == "STOPPED"
    (run,) = Tracker(mine.settings).newest("run", "digits", 1)
    assert run.info.status == "KILLED"
    three = start(mine, head)
    record = json.loads(three.communicate(timeout=120)[0])
    assert (record["run_id"], record["resumed_from"] > 0) == (run.info.run_id, True)
    results = ExperimentResults.of(mine.root, "digits")
    written = results.read(results.record)
    assert {name: record[name] for name in written} == written
    assert (mine.root / "results/digits/curves.csv").read_text().startswith("metric,step,value\n")


def start(project: Project, head: Head) -> subprocess.Popen[str]:
    """`assay train digits` here, with the work done there."""
    environment = {**project.environment, "ASSAY_CLUSTER": head.address}
    command = [str(BIN / "assay"), "train", "digits", "--json"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=project.root, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_a_failed_job_ends_as_the_command_would(cluster: Cluster, head: Head, mine: Project) -> None:
    told = mine.refused("submit", "--address", head.address, "--", "register", "nothing", apart=True)
    assert told.splitlines()[-2].startswith("error: params.yaml: unknown experiment 'nothing'")
    assert "register-nothing" in told.splitlines()[-1]
    run_script(cluster, mine, "import os; os.kill(os.getpid(), 9)", "killed")
    with pytest.raises(WorkError, match="job killed failed: its process was killed by signal 9"):
        result_of(Follower(cluster, "killed", lambda _: None, lambda _: None).to_the_end())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("trian digits", "unknown verb 'trian'; did you mean 'train'?"),
        ("predict digits a.png", "`assay predict` runs here, not on a cluster"),
        ("train digitz", "unknown experiment 'digitz'; did you mean 'digits'?"),
        ("tune nothing", "unknown search 'nothing'"),
        ("train digits --set train.epoch=3", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("train digits --set task.api_token=abcdefgh", "task.api_token: looks like a password or a token"),
    ],
)
def test_a_wrong_command_starts_nothing(cluster: Cluster, mine: Project, line: str, says: str) -> None:
    before = cluster.list()
    with pytest.raises(InputError) as told:
        submit(parsed(*line.split()), mine.settings, cluster, lambda _: None)
    assert says in str(told.value)
    assert "\n" not in str(told.value)
    assert "abcdefgh" not in str(told.value)
    assert cluster.list() == before


def test_a_project_that_cannot_be_sent_starts_nothing(
    cluster: Cluster, mine: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cluster.list()

    def refused() -> str:
        with pytest.raises(InputError) as told:
            submit(parsed("train", "digits"), mine.settings, cluster, lambda _: None)
        assert cluster.list() == before
        return str(told.value)

    large = mine.root / "frames.bin"
    large.write_bytes(os.urandom(6_000_000))
    assert "the most is 5 MB; the largest files: frames.bin (6.0 MB)" in refused()
    large.unlink()
    monkeypatch.setenv("STORE_PASSWORD", "correct horse battery")
    (mine.root / "store.py").write_text("connect('correct horse battery')\n")
    told = refused()
    assert told.startswith("store.py: holds the value of the environment variable STORE_PASSWORD")
    assert "horse" not in told
    (mine.root / "store.py").unlink()
    shutil.rmtree(mine.root / ".dvc/cache", ignore_errors=True)
    mine.run("dvc", "remote", "modify", "store", "url", str(mine.root / "elsewhere"))
    assert "run `dvc push data@digits`" in refused()


def test_a_cluster_that_is_not_right_is_named(
    cluster: Cluster, head: Head, mine: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(address: str, kind: type[AssayError] = InputError) -> str:
        with pytest.raises(kind) as error:
            submit(parsed("train", "digits"), mine.settings, Cluster(address, "--address"), lambda _: None)
        assert "\n" not in str(error.value)
        return str(error.value)

    with pytest.raises(InputError, match="no cluster is named: use --address http://HEAD:8265, or set ASSAY_CLUSTER"):
        jobs.list_()
    assert "write it as http://HEAD:8265" in told("127.0.0.1:8265")
    assert "write it as http://HEAD:8265" in told("ray://127.0.0.1:10001")
    hidden = told("http://me:hunter2hunter2@127.0.0.1:8265")
    assert "leave out user and password" in hidden
    assert "hunter2" not in hidden
    assert "no answer (Connection refused)" in told(f"http://{HOST}:{free_port()}", Unavailable)
    with answering(sends(b'{"version": "4", "ray_version": "1.13.0"}')) as other:
        assert "the cluster runs Ray 1.13.0, here is Ray" in told(other)
    with answering(sends(b"<html>welcome</html>")) as other:
        assert "not a Ray dashboard" in told(other)
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert "the cluster requires a token: set RAY_AUTH_MODE=token" in told(head.address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    assert "the token is not this cluster's" in told(head.address)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    assert "RAY_AUTH_TOKEN_PATH /nowhere/token: cannot be read" in told(head.address)


def sends(content: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer
