"""Runs that are kept in a bucket: killed, cut off and taken over, they end as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from assay.owner import Owner
from assay.storage.attempts import attempts, pieces, whole
from assay.storage.lease import NAME
from assay.storage.object_store import ObjectStore
from assay.tracking.tracker import Tracker
from assay.workers.home import OWNER
from tests.conftest import BIN, Project
from tests.support.s3 import ObjectStorage
from tests.support.servers import wait_for
from tests.support.wire import Wire

SETTINGS = ("train.epochs=12", "train.workers=0", "train.checkpoint_seconds=0")
WORDS = ("train", "digits", *(word for setting in SETTINGS for word in ("--set", setting)))

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]


@pytest.fixture
def clones(template: Project, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> list[Project]:
    """Two clones of a project, on one tracking store and one bucket."""
    found = [template.copy(tmp_path / name) for name in ("a", "b")]
    monkeypatch.setenv("ASSAY_TRACKING_URI", f"sqlite:///{found[0].root}/.assay/mlflow.db")
    monkeypatch.setenv("ASSAY_ARTIFACT_URI", (tmp_path / "artifacts").as_uri())
    monkeypatch.setenv("ASSAY_STORAGE", f"{bucket}/runs")
    return found


@pytest.fixture
def undisturbed(
    template: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, set[tuple[str, int, float]]]:
    """The weights of the run without object storage, and its points."""
    project = template.copy(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.delenv("ASSAY_STORAGE", raising=False)
        patch.delenv("ASSAY_TRACKING_URI", raising=False)
        record = project.train("digits", *SETTINGS)
        return record["weights_sha256"], set(points(project, record["run_id"]))


def points(project: Project, run_id: str) -> Counter[tuple[str, int, float]]:
    """How often the store has each point of the metrics that follow from the inputs."""
    history = Tracker(project.settings).history(run_id)
    return Counter((name, step, value) for name, value, _, step in history if name.startswith(("train/", "val/")))


def begun(project: Project, saved: Callable[[ObjectStore], bool]) -> tuple[subprocess.Popen[str], str]:
    """A training whose state in the bucket is such, and its run."""
    child = subprocess.Popen(
        [BIN / "assay", *WORDS], cwd=project.root, env=project.environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    limit = time.monotonic() + 120
    while True:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < limit
        for folder in (project.root / ".assay/runs").glob("*/spool.jsonl"):
            run_id = folder.parent.name
            if saved(ObjectStore(f"{project.settings.remote_runs}/{run_id}")):
                return child, run_id
        time.sleep(0.05)


def is_saved(store: ObjectStore) -> bool:
    return any(whole(place) and pieces(place) for place in attempts(store))


def check(project: Project, run_id: str, weights: str, undisturbed: tuple[str, set[tuple[str, int, float]]]) -> None:
    assert weights == undisturbed[0]
    found = points(project, run_id)
    assert set(found) == undisturbed[1], "none is lost"
    assert set(found.values()) == {1}, "none is there twice"
    assert Tracker(project.settings).get(run_id).info.status == "FINISHED"
    assert ObjectStore(project.settings.remote_runs or "").list() == {}, "all of it is in the tracking store"


def test_a_killed_run_ends_on_another_machine(
    clones: list[Project], undisturbed: tuple[str, set[tuple[str, int, float]]]
) -> None:
    here, there = clones
    child, run_id = begun(here, is_saved)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    record = there.train("digits", *SETTINGS)
    assert record["run_id"] == run_id
    assert record["resumed_from"]
    check(there, run_id, record["weights_sha256"], undisturbed)


def test_a_run_that_is_taken_over_is_the_winners_alone(
    clones: list[Project], undisturbed: tuple[str, set[tuple[str, int, float]]]
) -> None:
    here, there = clones
    child, run_id = begun(here, is_saved)
    dead = replace(Owner.here(), pid=2**22 + 7).plain()  # as if the first had been taken for dead
    lease = json.dumps({"number": 7, "token": "t", "owner": dead, "nonce": "n"}).encode()
    ObjectStore(f"{there.settings.remote_runs}/{run_id}").put(NAME, lease)
    record = there.train("digits", *SETTINGS)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "another process has taken this run over" in said.splitlines()[-1]
    assert record["run_id"] == run_id
    check(there, run_id, record["weights_sha256"], undisturbed)


def test_a_bucket_that_is_cut_off_costs_time_alone(
    clones: list[Project],
    undisturbed: tuple[str, set[tuple[str, int, float]]],
    s3: ObjectStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the middle of the training until after its end."""
    here, _ = clones
    wire = Wire(s3.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{wire.port}")
    spools = here.settings.runs

    def cut() -> None:
        wait_for("a metric", lambda: list(spools.glob("*/spool.jsonl")), 60)
        with wire.cut():
            wait_for("the end of the training", lambda: list(spools.glob("*/outcome.json")), 120)
            wait_for("a word", lambda: "with everything safe in" in told(), 60)

    def told() -> str:
        return "".join(path.read_text() for path in spools.glob("*/told.log"))

    thread = threading.Thread(target=cut)
    thread.start()
    record = here.train("digits", *SETTINGS)
    thread.join()
    check(here, record["run_id"], record["weights_sha256"], undisturbed)


def test_a_worker_that_dies_leaves_its_folder_to_the_next(clones: list[Project]) -> None:
    """Workers that share no folder with the process that leads them: here all on one machine."""
    here, _ = clones
    homes = Path(tempfile.gettempdir()) / f"assay-runs-{os.getuid()}"

    def folders() -> list[Path]:
        return [home for run in here.settings.runs.glob("*/") for home in homes.glob(f"{run.name}/*/rank-0")]

    def kill() -> None:
        wait_for("a checkpoint", lambda: [f for f in folders() if list(f.glob("checkpoints/step-*"))], 240)
        (folder,) = folders()
        os.kill(json.loads((folder / OWNER).read_text())["pid"], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    settings = ("train.epochs=8", "train.workers=2", "train.checkpoint_seconds=0")
    words = [word for setting in settings for word in ("--set", setting)]
    record = here.assay("train", "digits", *words, apart=True)  # with a Ray of its own, which knows the bucket's keys
    thread.join()
    assert record["resumed_from"]
    assert set(points(here, record["run_id"]).values()) == {1}
    accuracies = [step for name, step, _ in points(here, record["run_id"]) if name == "val/accuracy"]
    assert sorted(accuracies) == [19 * epoch for epoch in range(1, 9)]
    assert folders() == []
    assert ObjectStore(here.settings.remote_runs or "").list() == {}
