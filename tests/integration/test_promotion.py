"""What is registered is what was measured, and of several commands at once, or one that dies, no two results remain."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.exceptions import MlflowException
from safetensors.torch import load_file, save_file

from assay.data.dataset import Dataset
from assay.errors import InputError, WorkError
from assay.tasks.classification.model import Served
from assay.tracking import artifacts
from assay.tracking.registry import Registry
from assay.tracking.tracker import Tracker
from assay.usecases import evaluate as evaluation
from assay.usecases.evaluate import evaluate
from assay.usecases.helpers import rival
from assay.usecases.predict import PredictRequest, predict
from assay.usecases.promote import promote, register
from tests.conftest import Project
from tests.integration.test_models import digits_of, nothing
from tests.support.rivals import Runs, artifact, as_another_version, loosen_further


def version_numbers(project: Project) -> list[str]:
    return [str(version.version) for version in Registry(Tracker(project.settings))._versions("digits")]


def zero_the_last_layer(path: Path) -> None:
    weights = load_file(path)
    last = [name for name in weights if name.endswith("weight")][-1]
    save_file({**weights, last: torch.zeros_like(weights[last])}, path)


def test_other_weights_than_the_recorded_ones_are_not_registered(ready: Project) -> None:
    project, good = ready, Runs.of(ready).good
    zero_the_last_layer(artifact(project, good, artifacts.WEIGHTS))
    with pytest.raises(WorkError, match="are not those that were recorded"):
        register(good, project.settings)
    artifact(project, good, artifacts.WEIGHTS).write_bytes(b"cut")
    with pytest.raises(WorkError, match=r"the weights of run \w+ cannot be read"):
        register(good, project.settings)
    Tracker(project.settings)._client.delete_tag(good, "assay.evaluation.test")
    with pytest.raises(WorkError, match=r"the weights of run \w+ cannot be read"):
        evaluate(good, "test", project.settings, nothing)
    assert version_numbers(project) == []


@pytest.mark.parametrize("name", artifacts.EXPLAIN)
def test_a_run_whose_provenance_is_lost_or_damaged_is_not_registered(ready: Project, name: str) -> None:
    file = artifact(ready, Runs.of(ready).good, name)
    whole = file.read_bytes()
    file.write_bytes(whole + b" ")
    with pytest.raises(WorkError, match=f"its {name} is not what was recorded"):
        register(Runs.of(ready).good, ready.settings)
    file.unlink()
    with pytest.raises(InputError, match=f"its provenance lacks {name}: train it again with --new"):
        register(Runs.of(ready).good, ready.settings)
    assert version_numbers(ready) == []


def test_a_false_figure_is_not_registered(ready: Project) -> None:
    project, poor = ready, Runs.of(ready).poor
    Tracker(project.settings).set_tags(poor, {"assay.evaluation.test": json.dumps({"test/accuracy": 0.99})})
    with pytest.raises(
        WorkError, match=r"test/accuracy of the trained network is 0\.\d+ now, but 0\.9900 was recorded"
    ):
        register(poor, project.settings)
    assert version_numbers(project) == []


def test_a_program_with_another_preprocessing_is_not_registered(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, good = ready, Runs.of(ready).good
    right = Served.forward

    def darker(self: Served, images: torch.Tensor) -> torch.Tensor:
        return right(self, images * 0.9)

    monkeypatch.setattr(Served, "forward", darker)
    with pytest.raises(WorkError, match=r"the exported model answers \d+ of 128 test samples otherwise"):
        register(good, project.settings)
    assert version_numbers(project) == []


def test_a_model_whose_files_changed_does_not_answer(rivals: Project, tmp_path: Path) -> None:
    project, good = rivals, Runs.of(rivals).good
    (program,) = artifact(project, good, artifacts.MODEL).rglob("model.pt2")
    content = bytearray(program.read_bytes())
    content[len(content) // 2] ^= 1
    program.write_bytes(content)
    with pytest.raises(WorkError, match="its files are not the ones that were registered"):
        predict(PredictRequest("digits", digits_of(project, tmp_path, 1)), project.settings, nothing)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    barrier = threading.Barrier(len(calls))

    def begin(call: Callable[[], Any]) -> Any:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [done.result() for done in [pool.submit(begin, call) for call in calls]]


def test_two_that_register_a_run_at_once_make_one_version(ready: Project) -> None:
    project, good = ready, Runs.of(ready).good
    results = at_once(*[lambda: register(good, project.settings)] * 2)
    assert [(result["version"], result["decision"]) for result in results] == [("1", "promoted")] * 2
    assert all("no champion to compare with" in result["reasons"] for result in results)
    assert version_numbers(project) == ["1"]


def test_of_two_promotions_at_once_the_better_ends_as_champion(
    rivals: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = rivals
    loosen_further(project, "0.0}}")
    Tracker(project.settings)._client.delete_registered_model_alias("digits", "champion")
    crown, waited = Registry.crown, threading.Event()

    def slowly(self: Registry, version: Any, *others: Any) -> None:
        if str(version.version) == "2":  # the poor one has decided: would the good one go ahead of it now?
            waited.wait(1)
        crown(self, version, *others)
        waited.set()

    monkeypatch.setattr(Registry, "crown", slowly)
    at_once(lambda: promote("digits", "1", project.settings), lambda: promote("digits", "2", project.settings))
    champion = Registry(Tracker(project.settings)).champion("digits")
    assert champion is not None
    assert str(champion.version) == "1"


def test_only_a_missing_champion_counts_as_none(rivals: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(Tracker(rivals.settings))
    assert registry.champion("unknown") is None
    registry._client.delete_registered_model_alias("digits", "champion")
    assert registry.champion("digits") is None
    with pytest.raises(InputError, match=r"Known: digits\.$"):
        registry.get("assay.turns", None)

    def fail(*_: object, **__: object) -> None:
        raise MlflowException("the store has a bad day")

    for name in ("get_registered_model", "get_model_version_by_alias", "get_model_version"):
        monkeypatch.setattr(type(registry._client._client), name, fail)
    with pytest.raises(MlflowException, match="bad day"):
        registry.champion("digits")
    with pytest.raises(MlflowException, match="bad day"):
        promote("digits", "1", rivals.settings)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def mortal(method: Callable[..., None], calls: Iterator[int], last: int) -> Callable[..., None]:
    """A method whose call of this number, counted with those of others, is its process's last."""

    def call(*given: Any) -> None:
        method(*given)
        if next(calls) == last:
            raise Killed

    return call


def test_an_evaluation_that_dies_anywhere_is_completed_by_the_next(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each call that writes, in turn."""
    project, good = ready, Runs.of(ready).good
    tracker = Tracker(project.settings)
    expected = evaluated(tracker, good)
    measure, measured = evaluation.measure, []

    def once(*given: Any) -> Any:
        measured.append(measured[0] if measured else measure(*given))
        return measured[0]

    monkeypatch.setattr(evaluation, "measure", once)
    for last in count(1):
        forget(tracker, good)
        with monkeypatch.context() as patch:
            calls = count(1)
            for name in ("log_bytes", "log_points", "set_tags"):
                patch.setattr(Tracker, name, mortal(getattr(Tracker, name), calls, last))
            try:
                evaluate(good, "test", project.settings, nothing)
                break
            except Killed:
                pass
        evaluate(good, "test", project.settings, nothing)
        assert evaluated(tracker, good) == expected, last
    assert last > 5


def evaluated(tracker: Tracker, run_id: str) -> dict[str, Any]:
    """The history of the test metrics but for its times, and the names of the pictures."""
    names = [name for name in tracker.get(run_id).data.metrics if name.startswith("test/")]
    history = {name: tracker._client.get_metric_history(run_id, name) for name in names}
    points = {name: [(point.step, point.value) for point in points] for name, points in history.items()}
    return {"points": points, "pictures": sorted(tracker.names(run_id, artifacts.PICTURES))}


def forget(tracker: Tracker, run_id: str) -> None:
    """Take an evaluation out of the database again."""
    with sqlite3.connect(tracker.settings.state / "mlflow.db") as connection:
        for table in ("metrics", "latest_metrics"):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid = ? AND key LIKE 'test/%'", (run_id,))
        connection.execute("DELETE FROM tags WHERE run_uuid = ? AND key = 'assay.evaluation.test'", (run_id,))
    for picture in artifact_folder(tracker, run_id).glob("test-*"):
        picture.unlink()


def artifact_folder(tracker: Tracker, run_id: str) -> Path:
    return Path(tracker.get(run_id).info.artifact_uri.removeprefix("file://")) / artifacts.PICTURES


def test_two_evaluations_at_once_record_each_metric_once(ready: Project) -> None:
    project, good = ready, Runs.of(ready).good
    tracker = Tracker(project.settings)
    expected = evaluated(tracker, good)
    forget(tracker, good)
    at_once(*[lambda: evaluate(good, "test", project.settings, nothing)] * 2)
    assert evaluated(tracker, good) == expected
    assert tracker.tickets() == []


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (367, "the champion was measured again on this dataset version"),
        (30, "compared on the 30 of 367 test samples of this dataset version that are new to the champion"),
        (29, "not compared with the champion: only 29 of 367 test samples are new to the champion"),
    ],
)
def test_a_champion_is_measured_on_what_it_has_not_learnt_from(
    rivals: Project, monkeypatch: pytest.MonkeyPatch, new: int, says: str
) -> None:
    project, good = rivals, Runs.of(rivals).good
    loosen_further(project, "0.0}}")
    as_another_version(project, good)
    test = [number.to_bytes(16, "big") for number in range(367)]
    monkeypatch.setattr(rival, "identities", lambda dataset, split: test)
    own = 1 if new < len(test) else 0  # that the candidate has learnt from
    monkeypatch.setattr(rival, "seen_identities", lambda dataset: set(test[:own]))
    record_seen(project, good, b"".join(test[own + new :]))
    result = promote("digits", "2", project.settings)
    assert says in result["reasons"]
    assert (result["decision"] == "promoted") == (new < 30), "only its own floor decides if it was not compared"
    against = [reason for reason in result["reasons"] if "against the champion's" in reason]
    assert len(against) == (new >= 30)


def record_seen(project: Project, run_id: str, content: bytes) -> None:
    Tracker(project.settings).log_bytes(run_id, artifacts.SEEN, content)


def test_a_champion_without_a_record_is_not_compared_and_that_is_said(rivals: Project) -> None:
    project, good = rivals, Runs.of(rivals).good
    loosen_further(project, "0.0}}")
    as_another_version(project, good)
    seen = artifact(project, good, artifacts.SEEN)
    assert seen.stat().st_size == 16 * (1254 + 176), "of each image of the train and the val split"
    seen.unlink()
    result = promote("digits", "2", project.settings)
    assert result["decision"] == "promoted"
    assert any("it was registered without a record of the images" in reason for reason in result["reasons"])


COLOUR = {"channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}


def test_a_grey_champion_sees_a_colour_version_in_grey(rivals: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project, good = rivals, Runs.of(rivals).good
    accuracy = evaluate(good, "test", project.settings, nothing)["metrics"]
    as_another_version(project, good)
    opened = rival.open_training_dataset

    def coloured(*given: Any) -> Dataset:
        dataset = opened(*given)
        return replace(dataset, card=dataset.card.model_copy(update=COLOUR))

    monkeypatch.setattr(rival, "open_training_dataset", coloured)
    monkeypatch.setattr(rival, "seen_identities", lambda dataset: set())
    record_seen(project, good, b"")
    result = promote("digits", "2", project.settings)
    assert any(f"against the champion's {accuracy['test/accuracy']:.4f}" in reason for reason in result["reasons"])


def test_a_champion_that_does_not_fit_is_no_failure(rivals: Project) -> None:
    project, good = rivals, Runs.of(rivals).good
    loosen_further(project, "0.0}}")
    as_another_version(project, good, COLOUR)
    record_seen(project, good, b"")
    result = promote("digits", "2", project.settings)
    assert result["decision"] == "promoted"
    assert any("not compared with the champion: it does not fit" in reason for reason in result["reasons"])
