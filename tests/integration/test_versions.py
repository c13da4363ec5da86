"""A run trains on its own version of the data to the end, whatever becomes of `data/NAME` meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from assay.config.params import load_params
from assay.data.dataset import prepare
from assay.data.version import folder_hash
from assay.errors import AssayError
from assay.state import DATASETS
from assay.tracking.runs import Claim
from assay.tracking.tracker import Tracker
from assay.train import loop
from assay.tune.search import Trial
from assay.tune.trial import begin
from assay.usecases import train as train_module
from assay.usecases.evaluate import evaluate
from assay.usecases.helpers.search_context import SearchContext
from tests.conftest import Project
from tests.support.meanwhile import meanwhile
from tests.support.searched import Searched

ONE = ("train.epochs=1", "train.workers=0")
TWO = ("train.epochs=4", "train.workers=2", "train.checkpoint_seconds=0")


@pytest.fixture
def replace(project: Project) -> Callable[[], str]:
    """Puts another version in the place of `data/digits`, as `git checkout` and `dvc checkout` would; its hash."""
    config = load_params(project.root / "params.yaml").dataset("digits").model_copy(update={"seed": 3})
    other = project.root / "data" / "other"
    prepare(project.root, "digits", config, other, lambda *_: None)

    def swap() -> str:
        data = project.root / "data" / "digits"
        shutil.rmtree(data)
        other.rename(data)
        return folder_hash(data, None)[0]

    return swap


def before_launch(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Do something after a training has opened its data, and before its workers start."""
    meanwhile(train_module, "launch", work, monkeypatch)


@pytest.mark.parametrize("workers", [2, 0])
def test_a_version_that_is_nowhere_stops_the_run(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    replace: Callable[[], str],
    request: pytest.FixtureRequest,
    workers: int,
) -> None:
    if workers:
        request.getfixturevalue("shared_ray")
    recorded = folder_hash(project.root / "data" / "digits", None)[0]
    found: list[str] = []

    def lose() -> None:
        shutil.rmtree(project.root / ".assay" / DATASETS, ignore_errors=True)
        shutil.rmtree(project.root / ".dvc" / "cache")
        found.append(replace())

    before_launch(monkeypatch, lose)
    with pytest.raises(AssayError) as caught:
        project.train("digits", *ONE, f"train.workers={workers}")
    assert recorded in str(caught.value)
    assert found[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_version_that_only_dvc_has_is_trained_on(project: Project) -> None:
    whole = project.train("digits", *ONE)
    for place in ("data/digits", ".assay/datasets"):
        shutil.rmtree(project.root / place)
    assert project.train("digits", *ONE, new=True)["weights_sha256"] == whole["weights_sha256"]
    assert not (project.root / "data/digits").exists()


def test_data_replaced_while_the_training_starts(
    project: Project, monkeypatch: pytest.MonkeyPatch, replace: Callable[[], str]
) -> None:
    whole = project.train("digits", *ONE)
    before_launch(monkeypatch, replace)
    record = project.train("digits", *ONE, new=True)
    assert record["weights_sha256"] == whole["weights_sha256"]
    assert record["dataset"] == whole["dataset"]
    # The version is gone from data/, but not from DVC's cache: the run can still be measured.
    shutil.rmtree(project.root / ".assay" / DATASETS)
    told: list[str] = []
    assert "test/accuracy" in evaluate(record["run_id"], "test", project.settings, told.append)["metrics"]


@pytest.mark.parametrize("moment", ["_loader", "_evaluate_epoch"])
def test_data_written_to_while_they_are_read(project: Project, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """In place, so that the data, the run's own link and DVC's cache change at once."""
    data = project.root / "data" / "digits"
    recorded = folder_hash(data, None)[0]
    monkeypatch.setattr("assay.tasks.classification.data.MEMORY", 0)

    def write() -> None:
        file = data / "train-all.arrow"
        with pa.memory_map(str(file)) as source:
            table = pa.ipc.open_file(source).read_all()
            shifted = [(label + 1) % 10 for label in table.column("label").to_pylist()]
            column = pa.array(shifted, table.schema.field("label").type)
            batches = table.set_column(table.schema.get_field_index("label"), "label", column).to_batches(256)
            target = pa.BufferOutputStream()
            with pa.ipc.new_file(target, table.schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        file.chmod(0o644)
        file.write_bytes(target.getvalue().to_pybytes())

    meanwhile(loop, moment, write, monkeypatch)
    with pytest.raises(AssayError) as caught:
        project.train("digits", *ONE)
    assert "files were written to while they were in use" in str(caught.value)
    assert recorded in str(caught.value)
    assert folder_hash(data, None)[0] in str(caught.value)
    (run,) = Tracker(project.settings).newest("run", "digits", 9)
    assert run.info.status == "FAILED"
    assert not list((project.root / ".assay/runs").glob("*/checkpoints/*"))


def test_data_replaced_and_a_worker_killed(
    project: Project, shared_ray: None, monkeypatch: pytest.MonkeyPatch, replace: Callable[[], str]
) -> None:
    whole = project.train("digits", *TWO)
    known = set((project.root / ".assay/runs").glob("*/spool.jsonl"))
    ended = threading.Event()

    def assassin() -> None:
        spools = project.root / ".assay/runs"
        while not any("val/accuracy" in path.read_text() for path in set(spools.glob("*/spool.jsonl")) - known):
            if ended.wait(0.02):
                return
        ours = psutil.Process().children(recursive=True)
        workers = [p for p in ours if p.is_running() and "RayTrainWorker" in " ".join(p.cmdline())]
        workers[-1].kill()

    before_launch(monkeypatch, replace)
    thread = threading.Thread(target=assassin)
    thread.start()
    try:
        record = project.train("digits", *TWO, new=True)
    finally:
        ended.set()
        thread.join()
    assert record["resumed_from"] is not None
    assert record["weights_sha256"] == whole["weights_sha256"]


def test_data_replaced_before_a_trial_begins(project: Project, replace: Callable[[], str]) -> None:
    params = project.root / "params.yaml"
    params.write_text(params.read_text().replace("workers: 2", "workers: 0"))
    space = {"optimizer.lr": {"uniform": [0.001, 0.01]}}
    Searched(project).write(experiment="digits", space=space, budget={"trials": 2})
    context = SearchContext.of("s", project.settings)

    def trained(folder: Path) -> str:
        assignment = context.assign(Claim("s", folder, False), Trial(0, 0, {"optimizer.lr": 0.005}, None, 1), ())
        assignment.folder.mkdir(parents=True)
        runner = begin(assignment.plain())
        report = runner.advance()
        while not report["done"]:
            report = runner.advance()
        runner.close()
        return str(report["outcome"]["weights_sha256"])

    whole = trained(project.root / "whole")
    replace()
    assert trained(project.root / "replaced") == whole
