"""A Ray cluster of nodes with addresses and files of their own, a token, Postgres, and object storage in between."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import BIN, Project
from tests.support.nodes import Cluster, can_make_nodes, network, running_cluster
from tests.support.postgres import Postgres, binaries, running_postgres
from tests.support.s3 import BUCKET, ObjectStorage, running_s3

pytestmark = [
    pytest.mark.skipif(not can_make_nodes(), reason="needs root and `ip`, to make nodes"),
    pytest.mark.skipif(binaries() is None, reason="needs PostgreSQL: apt-get install postgresql"),
    pytest.mark.timeout(600),
]
TRAINING = ("train", "digits", "--set", "train.workers=2", "--set", "train.checkpoint_seconds=0.5", "--set")


@dataclass
class Setup:
    """The cluster, the servers beside it, and a project whose data are in a remote that the nodes reach."""

    cluster: Cluster
    postgres: Postgres
    s3: ObjectStorage
    project: Project

    @property
    def places(self) -> dict[str, str]:
        """What every node is told."""
        return dict(self.cluster.environment)

    @property
    def environment(self) -> dict[str, str]:
        """Of a laptop that may use the cluster, and shares the tracking store with it."""
        shared = {name: self.places[name] for name in ("ASSAY_TRACKING_URI", "ASSAY_ARTIFACT_URI")}
        return {**self.project.environment, **self.s3.environment, **self.cluster.access, **shared}

    def assay(self, *words: str, code: int = 0, **more: str) -> tuple[dict[str, Any], str]:
        done = subprocess.run(
            [BIN / "assay", *words], cwd=self.project.root, env=self.environment | more, capture_output=True, text=True
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr

    def submit(self, *words: str, code: int = 0) -> tuple[dict[str, Any], str]:
        return self.assay("submit", "--address", self.cluster.dashboard, "--json", "--", *words, code=code)

    def driver(self, code: int, **places: str) -> str:
        """`assay train` as a driver on the head, with other places; what it says."""
        own = {**self.places, **places, "ASSAY_RAY_ADDRESS": self.cluster.address}
        return self.assay("train", "digits", "--workers", "2", code=code, **own)[1]


@pytest.fixture(scope="module")
def setup(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    root = tmp_path_factory.mktemp("cluster") / "p"
    shutil.copytree(template.root, root, symlinks=True)
    project = Project(root)
    with network() as made, running_postgres(made.host) as postgres, running_s3(made.host) as s3:
        environment = {
            "ASSAY_TRACKING_URI": postgres.url,
            "ASSAY_ARTIFACT_URI": f"s3://{BUCKET}/artifacts",
            "ASSAY_STORAGE": f"s3://{BUCKET}/runs",
            **s3.environment,
        }
        with running_cluster(environment, made, workers=2) as cluster:
            found = Setup(cluster, postgres, s3, project)
            project.run("dvc", "remote", "add", "--default", "team", f"s3://{BUCKET}/dvc")
            push = [sys.executable, "-m", "dvc", "push", "data@digits"]
            subprocess.run(push, cwd=root, env=found.environment, check=True, capture_output=True)
            yield found


def test_a_job_trains_on_two_nodes_and_its_model_is_registered(setup: Setup) -> None:
    trained, log = setup.submit(*TRAINING, "train.epochs=2", "--set", "gate.min={test/accuracy: 0.5}")
    assert "starting 2 workers on cpu, 1 threads each" in log  # and no node has two cores
    assert "fetched in" in log
    run = trained["run_id"]
    evaluated, _ = setup.submit("evaluate", run)
    registered, _ = setup.submit("register", run)
    assert (registered["model"], registered["alias"]) == ("digits", "champion")
    artifacts = [name for name in setup.s3.objects("artifacts/") if run in name]
    assert {"curves.png", "test-confusion.png", "model.safetensors"} <= {Path(name).name for name in artifacts}
    assert not setup.s3.objects("runs/")  # all of it is in the tracking store
    (row,) = setup.assay("runs", "--json")[0]["runs"]
    assert (row["run_id"], row["status"]) == (run, "FINISHED")
    assert row["metrics"]["test/accuracy"] == pytest.approx(evaluated["metrics"]["test/accuracy"])
    Image.new("L", (8, 8), 200).save(setup.project.root / "grey.png")
    (answer,) = setup.assay("predict", "digits", "grey.png", "--json")[0]["predictions"]
    assert answer["class"] in "0123456789"


def test_a_node_that_dies_costs_one_checkpoint_and_changes_no_bit(setup: Setup) -> None:
    whole, _ = setup.submit(*TRAINING, "train.epochs=8", "--new")
    spare = setup.cluster.add()
    command = [str(BIN / "assay"), "submit", "--address", setup.cluster.dashboard, "--json", "--", *TRAINING]
    with subprocess.Popen(
        [*command, "train.epochs=8", "--new"], cwd=setup.project.root, env=setup.environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as submitted:  # fmt: skip
        saved = wait_for_checkpoint(setup, submitted)
        dead = next(name for name in setup.cluster.nodes if name != spare and setup.cluster.trains(name))
        setup.cluster.kill(dead)
        out, log = submitted.communicate(timeout=300)
    assert submitted.returncode == 0, log
    record = json.loads(out)
    assert "a worker died" in log
    assert record["resumed_from"] >= saved
    assert record["trained_steps"] < record["steps"]
    assert record["weights_sha256"] == whole["weights_sha256"]


def wait_for_checkpoint(setup: Setup, submitted: subprocess.Popen[str]) -> int:
    """Until the store has a whole checkpoint; its step."""
    limit = time.monotonic() + 180
    while time.monotonic() < limit:
        names = [Path(name) for name in setup.s3.objects("runs/") if name.endswith("manifest.json")]
        if names:
            return max(int(name.parent.name.removeprefix("step-")) for name in names)
        assert submitted.poll() is None, submitted.communicate()
        time.sleep(0.2)
    raise AssertionError("no checkpoint came")


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"ASSAY_TRACKING_URI": ""}, "ASSAY_TRACKING_URI: the SQLite file"),
        ({"ASSAY_ARTIFACT_URI": ""}, "ASSAY_ARTIFACT_URI is not set"),
        ({"ASSAY_STORAGE": ""}, "ASSAY_STORAGE is not set"),
        ({"ASSAY_STORAGE": "s3://nowhere/x"}, "no bucket 'nowhere'"),
        ({"ASSAY_STORAGE": "{private}"}, "does not see this folder: name one that all nodes share"),
    ],
)
def test_places_that_one_node_alone_can_reach_are_refused(setup: Setup, places: dict[str, str], said: str) -> None:
    private = str(setup.cluster.folder / "t" / "runs")
    line = setup.driver(2, **{name: value.format(private=private) for name, value in places.items()})
    assert said in line
    assert len(line.splitlines()) <= 2
    runs = setup.assay("runs", "--json")[0]["runs"]
    assert all(run["status"] == "FINISHED" for run in runs)


def test_more_workers_than_cores_are_refused_with_the_number_there_is(setup: Setup) -> None:
    _, said = setup.submit("train", "digits", "--workers", "8", code=2)
    assert "8 workers need 8 CPU cores, and there are 2 CPU cores" in said
    assert os.environ.get("ASSAY_WAIT") is None
