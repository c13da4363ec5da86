"""MLflow on a real Postgres server and artifacts on an S3 server, by settings alone; and what happens when they go."""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import yaml

from assay.data.dataset import open_dataset
from assay.errors import InputError, Unavailable
from assay.http import status_of
from assay.settings import Settings
from assay.tracking import artifacts
from assay.tracking.provenance import missing
from assay.tracking.tracker import Tracker
from assay.usecases.evaluate import evaluate
from assay.usecases.predict import PredictRequest, predict
from assay.usecases.promote import promote, register
from tests.conftest import BIN, REPOSITORY, Project
from tests.integration.test_train import killed_while_training, wait_for_status
from tests.support.postgres import Postgres, binaries, running_postgres
from tests.support.s3 import BUCKET, ObjectStorage, running_s3
from tests.support.servers import free_port, start, stop

pytestmark = pytest.mark.skipif(binaries() is None, reason="no PostgreSQL here: apt-get install postgresql")
SHORT = ("train.epochs=2", "train.workers=0", "train.checkpoint_seconds=0")
LONG = ("train.epochs=30", "train.workers=0")
FIRST_USE = "import sys; from assay.settings import Settings; from assay.tracking.tracker import Tracker as T; \
from pathlib import Path; print(T(Settings(project=Path(sys.argv[1])))._experiment_id('digits'))"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStorage]:
    with running_s3() as storage:
        yield storage


@pytest.fixture
def database(request: pytest.FixtureRequest, postgres: Postgres) -> str:
    """An empty database, named after the test."""
    name = request.node.name.removeprefix("test_")[:40]
    postgres.create(name)
    return name


@pytest.fixture
def team(
    project: Project, postgres: Postgres, s3: ObjectStorage, database: str, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """A project that its environment alone sends to Postgres and S3."""
    settings = {"ASSAY_TRACKING_URI": postgres.address(database), "ASSAY_ARTIFACT_URI": f"s3://{BUCKET}/{database}/"}
    for name, value in {**settings, **s3.environment, "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    (project.root / ".assay/mlflow.db").unlink()
    return project


def nothing(*_: object) -> None:
    pass


def steps(project: Project, run_id: str, metric: str) -> list[int]:
    """The steps at which the store has a metric."""
    return [point.step for point in Tracker(project.settings)._client.get_metric_history(run_id, metric)]


def spooled(project: Project, run_id: str, metric: str) -> list[int]:
    """The steps at which the training wrote it down: its curves are drawn from the spool."""
    table = Tracker(project.settings).read_bytes(run_id, artifacts.CURVES).decode()
    return [int(row["step"]) for row in csv.DictReader(table.splitlines()) if row["metric"] == metric]


def in_mid_training(project: Project, act: Callable[[], None]) -> threading.Thread:
    """Do something once a training of the project has measured itself for the first time."""

    def wait() -> None:
        limit = time.monotonic() + 60
        while not any("val/accuracy" in path.read_text() for path in project.settings.runs.glob("*/spool.jsonl")):
            assert time.monotonic() < limit
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def holding(secret: str, *folders: Path) -> list[str]:
    """The files that hold a secret."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if secret.encode() in path.read_bytes()]


def test_from_training_to_prediction(
    team: Project, postgres: Postgres, s3: ObjectStorage, database: str, tmp_path: Path
) -> None:
    params = team.root / "params.yaml"
    params.write_text(params.read_text().replace("test/accuracy: 0.98", "test/accuracy: 0.5"))
    words = (word for pair in SHORT for word in ("--set", pair))
    said = team.verb("train", "digits", "--json", *words, apart=True)
    run_id = json.loads(said.stdout)["run_id"]
    metrics = evaluate(run_id, "test", team.settings, nothing)["metrics"]
    assert register(run_id, team.settings)["decision"] == "promoted"
    assert promote("digits", None, team.settings)["alias"] == "champion"

    tracker = Tracker(team.settings)
    run = tracker.get(run_id)
    assert run.info.artifact_uri == f"s3://{BUCKET}/{database}/digits/{run_id}/artifacts"
    assert missing(run.data.tags) == []
    assert run.data.metrics["test/accuracy"] == metrics["test/accuracy"]
    assert steps(team, run_id, "train/loss") == spooled(team, run_id, "train/loss")
    keys = {key.partition("/artifacts/")[2] for key in s3.objects(database)}
    pictures = {"pictures/curves.png", "pictures/test-confusion.png"}
    assert {*pictures, "weights/model.safetensors", "model/MLmodel", "record.json", "gate/report.json"} <= keys
    with pytest.raises(InputError, match="has no pictures/none.png"):
        tracker.read_bytes(run_id, "pictures/none.png")

    packed = open_dataset(team.root, "digits", team.root / "data/digits").split("test")
    (tmp_path / "one.png").write_bytes(bytes(packed.image(0)))
    answer = predict(PredictRequest("models:/digits@champion", [tmp_path / "one.png"]), team.settings, nothing)
    assert (answer["version"], len(answer["predictions"])) == ("1", 1)

    state = {path.name for path in (team.root / ".assay").iterdir()}
    assert state.isdisjoint({"mlflow.db", "artifacts"}), "nothing of it is on this machine"
    assert not (team.root / "mlruns").exists()
    for secret in (postgres.secret, s3.secret):
        assert secret not in said.stdout + said.stderr
        assert holding(secret, team.root) == []
        assert secret not in postgres.text(database)
        assert not [key for key, content in s3.objects(database).items() if secret.encode() in content]


@pytest.mark.thorough
def test_killed_and_run_again(team: Project) -> None:
    assignments = ("train.epochs=6", *SHORT[1:])
    words = [word for pair in assignments for word in ("--set", pair)]
    run = killed_while_training(team, "digits", *words, metric="val/accuracy", sign=9)
    wait_for_status(team, run.name, "KILLED")
    record = team.train("digits", *assignments)
    assert record["run_id"] == run.name
    assert record["resumed_from"] is not None
    for metric in ("train/loss", "val/accuracy"):
        assert steps(team, run.name, metric) == spooled(team, run.name, metric)
    assert steps(team, run.name, "val/accuracy") == [19 * epoch for epoch in range(1, 7)]


@pytest.mark.thorough
def test_first_use_by_many(team: Project, tmp_path: Path) -> None:
    """Four machines, which share no file, use an empty database at once: one makes the schema and the experiment."""
    folders = [tmp_path / f"machine-{number}" for number in range(4)]
    started = []
    for folder in folders:
        folder.mkdir()
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", FIRST_USE, str(folder)], cwd=folder, env=team.environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * 4, ended
    assert {out for out, _ in ended} == {"1\n"}


@pytest.mark.thorough
def test_postgres_restarts_in_mid_training(team: Project, postgres: Postgres) -> None:
    def restart() -> None:
        postgres.stop()
        time.sleep(1.0)
        postgres.start()

    thread = in_mid_training(team, restart)
    record = team.train("digits", *LONG)
    thread.join()
    assert Tracker(team.settings).get(record["run_id"]).info.status == "FINISHED"
    for metric in ("train/loss", "val/accuracy"):
        assert steps(team, record["run_id"], metric) == spooled(team, record["run_id"], metric)
    assert steps(team, record["run_id"], "val/accuracy") == [19 * epoch for epoch in range(1, 31)]


@pytest.mark.thorough
def test_postgres_ends_in_mid_training(team: Project, postgres: Postgres) -> None:
    """The training is saved and the run waits: the same command, later, hands everything over."""
    thread = in_mid_training(team, postgres.stop)
    try:
        with pytest.raises(Unavailable, match="the metrics are safe in") as caught:
            team.train("digits", *SHORT)
        assert postgres.secret not in str(caught.value)
        thread.join()
        error = team.refused("train", "digits", code=1, apart=True)
        assert error.strip().count("\n") == 0
        assert "does not answer: connection to server" in error
        assert postgres.secret not in error
    finally:
        thread.join()
        postgres.start()
    record = team.train("digits", *SHORT)
    assert steps(team, record["run_id"], "train/loss") == spooled(team, record["run_id"], "train/loss")
    client = Tracker(team.settings)._client
    assert [run.info.status for run in client.search_runs(["1"])] == ["FINISHED"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("p%40", "q%40"), "password authentication failed"),
        (("/access", "/nowhere"), 'database "nowhere" does not exist'),
        (("p%40", "p@p%40"), "could not translate host"),
        (("+psycopg2", "+nothing"), "write postgresql[+]psycopg2://USER"),
    ],
)
def test_access_is_refused(
    postgres: Postgres, tmp_path: Path, wrong: tuple[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_TRACKING_URI", postgres.address("access").replace(*wrong))
    with pytest.raises(InputError, match=says) as caught:
        Tracker(Settings(project=tmp_path))._client  # noqa: B018 - made on first use
    assert postgres.secret not in str(caught.value)


@pytest.mark.thorough
def test_object_storage_goes_and_comes_back(team: Project, s3: ObjectStorage) -> None:
    """Down while a run is created, then while it trains: FAILED with the reason, and the same run in the end."""
    s3.stop()
    with pytest.raises(Unavailable, match="the artifact store s3://.* does not answer"):
        team.train("digits", *SHORT)
    s3.start()
    thread = in_mid_training(team, s3.stop)
    with pytest.raises(Unavailable, match="the artifact store s3://.* does not answer"):
        team.train("digits", *SHORT)
    thread.join()
    tracker = Tracker(team.settings)
    (run,) = tracker._client.search_runs(["1"])
    assert run.info.status == "FAILED"
    assert "the artifact store" in run.data.tags["assay.reason"]
    s3.start()
    record = team.train("digits", *SHORT)
    assert record["run_id"] == run.info.run_id
    assert json.loads(tracker.read_bytes(run.info.run_id, "provenance/config.json"))["seed"] == 0
    assert missing(tracker.get(run.info.run_id).data.tags) == []
    s3.stop()
    try:
        error = team.refused("evaluate", run.info.run_id, code=1)
        assert "the artifact store s3://" in error
        assert s3.secret not in error
    finally:
        s3.start()


@pytest.fixture
def compose_server(
    team: Project, postgres: Postgres, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """MLflow's server as infra/compose.yaml starts it, on these servers; its address."""
    compose = yaml.safe_load((REPOSITORY / "infra" / "compose.yaml").read_text())
    service = compose["services"]["mlflow"]
    port = free_port()
    command = [*service["entrypoint"], *service["command"]]
    command[0] = str(BIN / command[0])
    for name, value in {"host": "127.0.0.1", "port": port}.items():
        command = [f"--{name}={value}" if word.startswith(f"--{name}=") else word for word in command]
    users = postgres.create(f"{database}_auth").replace("%", "%%")
    text = re.sub(
        "database_uri = .*", lambda _: f"database_uri = {users}", compose["configs"]["mlflow-auth"]["content"]
    )
    (tmp_path / "auth.ini").write_text(text)
    here = {
        "MLFLOW_BACKEND_STORE_URI": postgres.address(database),
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": "a long password of the tests",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
    }
    own = {name: value for name, value in service["environment"].items() if name.startswith("MLFLOW")}
    assert set(here) <= set(own), "the compose file sets what this test does"
    address = f"http://127.0.0.1:{port}"
    environment = {**team.environment, **{**own, **os.environ, **here}, "PATH": team.environment["PATH"]}
    server = start(command, tmp_path / "log", lambda: status_of(f"{address}/health") == 200, environment)
    monkeypatch.setenv("ASSAY_TRACKING_URI", address)
    monkeypatch.delenv("ASSAY_ARTIFACT_URI")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", own["MLFLOW_AUTH_ADMIN_USERNAME"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", here["MLFLOW_AUTH_ADMIN_PASSWORD"])
    try:
        yield address
        assert postgres.secret not in (tmp_path / "log").read_text()
    finally:
        stop(server, signal.SIGTERM)


@pytest.mark.thorough
def test_the_server_of_the_compose_file(
    team: Project, compose_server: str, s3: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = f"{compose_server}/ajax-api/2.0/mlflow/experiments/search?max_results=1"
    assert status_of(routes) == 401
    user, password = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
    for host, status in {"mlflow:5000": 200, "elsewhere.example": 403}.items():
        assert requests.get(routes, auth=(user, password), headers={"Host": host}, timeout=10).status_code == status

    record = team.train("digits", *SHORT)
    assert register(record["run_id"], team.settings)["version"] == "1"
    run = Tracker(team.settings).get(record["run_id"])
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert steps(team, record["run_id"], "train/loss") == spooled(team, record["run_id"], "train/loss")
    assert [key for key in s3.objects("mlflow/") if key.endswith(f"{record['run_id']}/artifacts/model/MLmodel")]

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"):
        Tracker(team.settings)._client  # noqa: B018 - made on first use
