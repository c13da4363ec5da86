"""What a run records of itself is what is read, or it is said; an emptied store is not taken for a new one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from assay.errors import WorkError
from assay.settings import Settings
from assay.tracking import artifacts
from assay.tracking.known_store import known, remember_store
from assay.tracking.tracker import Tracker
from tests.unit.tracking.test_runs import EXPERIMENT, provenance


def stored(tracker: Tracker, run_id: str, name: str) -> Path:
    """The file of an artifact."""
    return Path(unquote(urlsplit(tracker.get(run_id).info.artifact_uri).path)) / name


PICTURE = artifacts.evaluation_picture("test", "confusion")


@pytest.mark.parametrize(
    "name", [artifacts.RECORD, artifacts.CONFIG, artifacts.PACKAGES, artifacts.DIFF, artifacts.CURVES, PICTURE]
)
@pytest.mark.parametrize("harm", ["digit", "cut", "empty"])
def test_a_changed_record_is_noticed_by_whoever_reads_it(tracker: Tracker, name: str, harm: str) -> None:
    run_id = tracker.create(EXPERIMENT, provenance())
    tracker.set_status(run_id, "FINISHED")
    tracker.log_text(run_id, artifacts.RECORD, json.dumps({"metrics": {"val/accuracy": 0.1}}))
    tracker.log_text(run_id, artifacts.CURVES, "metric,step,value\n")
    tracker.log_bytes(run_id, PICTURE, b"\x89PNG")
    before = tracker.read_bytes(run_id, name)
    file = stored(tracker, run_id, name)
    file.write_bytes({"digit": bytes([before[0] ^ 1]) + before[1:], "cut": before[:-1], "empty": b""}[harm])
    with pytest.raises(WorkError, match=f"run {run_id}: its {name} is not what was recorded"):
        tracker.record(run_id) if name == artifacts.RECORD else tracker.read_bytes(run_id, name)
    file.write_bytes(before)
    assert tracker.read_bytes(run_id, name) == before


def test_a_record_that_is_written_again_is_read_again(tracker: Tracker) -> None:
    run_id = tracker.create(EXPERIMENT, provenance())
    for reason in ("paused", "finished"):
        tracker.log_text(run_id, artifacts.RECORD, json.dumps({"reason": reason}))
        assert tracker.record(run_id) == {"reason": reason}
    tracker.set_status(run_id, "FINISHED")


def test_an_emptied_store_is_said_and_a_new_one_is_not(settings: Settings, tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    new = Settings(project=tmp_path)
    new.state.mkdir()
    database = Path(settings.tracking.removeprefix("sqlite:///"))
    known(tracker)  # nothing is remembered
    empty = Tracker(new)
    known(empty)  # a clone, or a first run
    remember_store(new, "f" * 32)
    with pytest.raises(WorkError, match=f"{'f' * 32} among them: restore it; or, to begin anew, remove .*stores.json"):
        known(empty)
    own = Path(new.tracking.removeprefix("sqlite:///"))
    run_id = empty.create(EXPERIMENT, provenance())
    empty._client.delete_run(run_id)
    known(empty)  # deleted in MLflow's pages: that is no loss
    assert own.exists()
    assert database.exists()


def test_another_store_has_a_memory_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    state = tmp_path / ".assay"
    state.mkdir()
    remember_store(Settings(project=tmp_path, MLFLOW_TRACKING_URI="postgresql://anna:secret@db/mlflow"), "a" * 32)
    text = (state / "stores.json").read_text()
    assert "secret" not in text
    own = Tracker(Settings(project=tmp_path))
    known(own)
    (state / "stores.json").write_text("{")
    known(own)
    shutil.rmtree(state)
