"""A Ray cluster of nodes with addresses and files of their own, a token, Postgres, and object storage in between."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from benchmarks.common import set_value
from tests.conftest import BIN, Project
from tests.support.cluster_site import ClusterSite, cluster_site
from tests.support.nodes import can_make_nodes
from tests.support.postgres import binaries

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not can_make_nodes(), reason="needs root and `ip`, to make nodes"),
    pytest.mark.skipif(binaries() is None, reason="needs PostgreSQL: apt-get install postgresql"),
    pytest.mark.timeout(600),
]
TRAINING = ("train", "digits", "--set", "train.workers=2", "--set", "train.checkpoint_seconds=0.5", "--set")
SEARCH = {
    "few": {
        "experiment": "digits",
        "algorithm": "random",
        "budget": {"trials": 6},
        "set": {"train.workers": 0, "train.epochs": 2},
        "space": {"optimizer.lr": {"loguniform": [1e-4, 3e-2]}},
    }
}


@pytest.fixture(scope="module")
def site(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSite]:
    project = template.copy(tmp_path_factory.mktemp("cluster") / "p")
    with cluster_site(project.root, project.environment, ["digits"], workers=2) as found:
        yield found


def test_a_job_trains_on_two_nodes_and_its_model_is_registered(site: ClusterSite) -> None:
    trained, log = site.submit(*TRAINING, "train.epochs=4", "--set", "gate.min={test/accuracy: 0.5}")
    assert "starting 2 workers on cpu, 1 thread each" in log  # and no node has two cores
    assert "fetched in" in log
    run = trained["run_id"]
    evaluated, _ = site.submit("evaluate", run)
    registered, _ = site.submit("register", run)
    assert (registered["model"], registered["alias"]) == ("digits", "champion"), registered["reasons"]
    artifacts = [name for name in site.s3.objects("artifacts/") if run in name]
    assert {"curves.png", "test-confusion.png", "model.safetensors"} <= {Path(name).name for name in artifacts}
    assert not site.s3.objects("runs/")  # all of it is in the tracking store
    (row,) = site.assay("runs", "--json")[0]["runs"]
    assert (row["run_id"], row["status"]) == (run, "FINISHED")
    assert row["metrics"]["test/accuracy"] == pytest.approx(evaluated["metrics"]["test/accuracy"])
    Image.new("L", (8, 8), 200).save(site.root / "grey.png")
    (answer,) = site.assay("predict", "digits", "grey.png", "--json")[0]["predictions"]
    assert answer["class"] in "0123456789"


def test_a_node_that_dies_costs_one_checkpoint_and_changes_no_bit(site: ClusterSite) -> None:
    whole, _ = site.submit(*TRAINING, "train.epochs=8", "--new")
    spare = site.cluster.add()
    command = [str(BIN / "assay"), *site.submission(*TRAINING, "train.epochs=8", "--new")]
    with subprocess.Popen(
        command, cwd=site.root, env=site.environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as submitted:  # fmt: skip
        saved = wait_for_checkpoint(site, submitted)
        dead = next(name for name in site.cluster.nodes if name != spare and site.cluster.trains(name))
        site.cluster.kill(dead)
        out, log = submitted.communicate(timeout=300)
    assert submitted.returncode == 0, log
    record = json.loads(out)
    assert "a worker died" in log
    assert record["resumed_from"] >= saved
    assert record["trained_steps"] < record["steps"]
    assert record["weights_sha256"] == whole["weights_sha256"]


def wait_for_checkpoint(site: ClusterSite, submitted: subprocess.Popen[str]) -> int:
    """Until the store has a whole checkpoint; its step."""
    limit = time.monotonic() + 180
    while time.monotonic() < limit:
        names = [Path(name) for name in site.s3.objects("runs/") if name.endswith("manifest.json")]
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
        ({"ASSAY_STORAGE": "s3://nowhere/x"}, "bucket 'nowhere' does not exist"),
        ({"ASSAY_STORAGE": "{private}"}, "does not see this folder: use one that all nodes share"),
    ],
)
def test_places_that_one_node_alone_can_reach_are_refused(site: ClusterSite, places: dict[str, str], said: str) -> None:
    private = str(site.cluster.folder / "t" / "runs")
    own = {**site.places, **{name: value.format(private=private) for name, value in places.items()}}
    _, line = site.assay("train", "digits", "--workers", "2", code=2, **own, ASSAY_RAY_ADDRESS=site.cluster.address)
    assert said in line
    assert len(line.splitlines()) <= 2
    runs = site.assay("runs", "--json")[0]["runs"]
    assert all(run["status"] == "FINISHED" for run in runs)


def test_more_workers_than_cores_are_refused_with_the_number_there_is(site: ClusterSite) -> None:
    _, said = site.submit("train", "digits", "--workers", "8", code=2)
    assert "8 workers need 8 CPU cores, but there are 2 CPU cores" in said


def test_a_job_waits_for_a_node_where_told_to(site: ClusterSite) -> None:
    values = [word for value in ("train.epochs=1", "train.batch_size=96") for word in ("--set", value)]
    words = site.submission("train", "digits", "--workers", "3", *values, "--new")
    command = [str(BIN / "assay"), words[0], "--wait", *words[1:]]
    with subprocess.Popen(
        command, cwd=site.root, env=site.environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as submitted:  # fmt: skip
        assert submitted.stderr
        said = [""]
        while "waiting for the cluster to grow (train.workers: 3 workers need 3 CPU cores" not in said[-1]:
            said.append(submitted.stderr.readline())
            assert said[-1], said
        site.cluster.add()
        out, log = submitted.communicate(timeout=300)
    assert submitted.returncode == 0, log
    assert "starting 3 workers" in log
    assert json.loads(out)["status"] == "FINISHED"


def test_a_search_uses_all_nodes(site: ClusterSite) -> None:
    set_value(site.root, "searches", SEARCH)
    shared = site.root.parent / "shared"
    driver = {**site.places, "ASSAY_RAY_ADDRESS": site.cluster.address}
    _, said = site.assay("tune", "few", code=2, **driver)
    assert "the trials of a search need a shared folder: set it to a folder that all nodes share" in said
    found, said = site.assay("tune", "few", "--json", **{**driver, "ASSAY_STORAGE": str(shared)})
    assert (found["finished"], found["failed"]) == (6, 0), said
    store = MlflowClient(site.places["ASSAY_TRACKING_URI"])
    experiment = store.get_experiment_by_name("digits")
    times = [run.info for run in store.search_runs([experiment.experiment_id], "tags.`assay.kind` = 'trial'")]
    assert len(times) == 6
    together = [(a, b) for a in times for b in times if a.start_time < b.start_time < a.end_time]
    assert together  # and no node has room for two


def test_dvc_and_a_flow_use_the_cluster(site: ClusterSite) -> None:
    task = {"name": "classification", "architecture": "small_cnn", "image_size": 8}
    night = {"task": task, "data": "digits", "gate": {"min": {"test/accuracy": 0.1}}}  # it has no champion yet
    set_value(site.root, "experiments.night", {**night, "train": {"epochs": 1, "batch_size": 64, "workers": 2}})
    dvc = [sys.executable, "-m", "dvc", "repro", "train@night"]
    flow = [sys.executable, "-m", "pipelines", "train-and-promote", "night"]
    there = {**site.environment, "ASSAY_CLUSTER": site.cluster.dashboard}
    for command, epochs in ((dvc, 1), (flow, 2)):
        set_value(site.root, "experiments.night.train.epochs", epochs)
        done = subprocess.run(command, cwd=site.root, env=there, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "job assay-train-night-" in done.stderr
        assert "starting 2 workers" in done.stderr
        trained = json.loads((site.root / "results/night/train.json").read_text())
        assert trained["steps"] == 19 * epochs
    model = json.loads((site.root / "results/night/model.json").read_text())
    assert (model["run_id"], model["alias"]) == (trained["run_id"], "champion")
    assert (site.root / "results/night/pictures").is_dir()
