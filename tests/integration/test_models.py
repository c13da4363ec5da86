"""From a finished run to answers: evaluate, register, the gate, promote, roll back, predict, serve."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from assay.data.dataset import open_dataset
from assay.data.images import decode
from assay.errors import InputError
from assay.tracking.tracker import Tracker
from assay.usecases.evaluate import evaluate
from assay.usecases.predict import PredictRequest, predict
from assay.usecases.promote import promote, register, rollback
from tests.conftest import QUICK, Project


def nothing(*_: object) -> None:
    pass


def proved(project: Project, *assignments: str) -> str:
    """A trained and evaluated run."""
    run_id: str = project.train("digits", *QUICK, *assignments)["run_id"]
    evaluate(run_id, "test", project.settings, nothing)
    return run_id


@pytest.fixture(scope="module")
def registered(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a champion, for tests that only read."""
    project = template.copy(tmp_path_factory.mktemp("registered") / "p")
    loosen(project)
    register(proved(project), project.settings)
    return project


def loosen(project: Project, gate: str = "{min: {test/accuracy: 0.5}}") -> None:
    text = (project.root / "params.yaml").read_text()
    (project.root / "params.yaml").write_text(text.replace("gate: {min: {test/accuracy: 0.98}}", f"gate: {gate}"))


def test_evaluation_is_recorded_once_with_its_picture(project: Project) -> None:
    run_id = proved(project)
    lines: list[str] = []
    again = evaluate(run_id, "test", project.settings, lines.append)
    assert "nothing to evaluate" in lines[0]
    tracker = Tracker(project.settings)
    history = tracker._client.get_metric_history(run_id, "test/accuracy")
    assert [point.value for point in history] == [again["metrics"]["test/accuracy"]]
    assert tracker.read_bytes(run_id, "pictures/test-confusion.png").startswith(b"\x89PNG")
    cells = json.loads(tracker.read_bytes(run_id, "pictures/test-confusion.json"))
    assert sum(cell["count"] for cell in cells) == 367
    right = sum(cell["count"] for cell in cells if cell["actual"] == cell["predicted"])
    assert right / 367 == pytest.approx(again["metrics"]["test/accuracy"])


def test_the_gate_promotes_rejects_and_rolls_back(project: Project) -> None:
    loosen(project)
    settings = project.settings
    run_id = proved(project)
    other = {"first_step": 19, "threads": "64"}
    Tracker(settings).set_tags(run_id, {"assay.session.2": json.dumps(other)})
    first = register(run_id, settings)
    assert (first["version"], first["decision"], first["alias"]) == ("1", "promoted", "champion")
    assert any(reason.startswith("its sessions differ in threads: ") for reason in first["reasons"])
    assert register(first["run_id"], settings)["version"] == "1", "a run is registered once"

    poor = register(proved(project, "train.epochs=1", "optimizer.lr=1.0e-4"), settings)
    assert (poor["version"], poor["decision"], poor["alias"]) == ("2", "rejected", None)
    assert "champion" in poor["reasons"][-1]
    assert promote("digits", "2", settings)["decision"] == "rejected"

    loosen_again = (project.root / "params.yaml").read_text().replace("0.5}}", "0.05}, tolerance: 1.0}")
    (project.root / "params.yaml").write_text(loosen_again)
    assert promote("digits", None, settings)["decision"] == "promoted"
    back = rollback("digits", settings)
    assert (back["version"], back["decision"]) == ("1", "rolled back")
    with pytest.raises(InputError, match="none to go back to"):
        rollback("digits", settings)


def test_a_run_without_its_whole_record_is_not_registered(project: Project) -> None:
    run_id = proved(project)
    Tracker(project.settings)._client.delete_tag(run_id, "assay.commit")
    with pytest.raises(InputError, match="provenance lacks commit"):
        register(run_id, project.settings)


def test_an_unmeasured_run_does_not_pass(project: Project) -> None:
    record = project.train("digits", *QUICK)
    result = register(record["run_id"], project.settings)
    assert result["decision"] == "rejected"
    assert any("assay evaluate" in reason for reason in result["reasons"])


@pytest.mark.thorough
def test_the_champion_is_measured_anew_on_new_data(project: Project) -> None:
    loosen(project)
    register(proved(project), project.settings)
    text = (project.root / "params.yaml").read_text()
    (project.root / "params.yaml").write_text(
        text.replace("test: 0.2}\n    seed: 0", "test: 0.2}\n    seed: 5").replace("0.5}}", "0.5}, tolerance: 1.0}")
    )
    project.run("dvc", "repro", "-q", "data@digits")
    result = register(proved(project), project.settings)
    assert result["decision"] == "promoted"
    said = r"measured again|compared on the \d+ of \d+ test samples .* that are new to the champion"
    assert any(re.search(said, reason) for reason in result["reasons"])


def digits_of(project: Project, folder: Path, count: int = 12) -> list[Path]:
    """Test images of the project as files; their names start with their class."""
    packed = open_dataset(project.root, "digits", project.root / "data/digits").split("test")
    paths = []
    for i in range(count):
        paths.append(folder / f"{packed.column('label')[i]}-{i}.png")
        paths[-1].write_bytes(bytes(packed.image(i)))
    return paths


def test_predict_names_bad_files_and_answers_the_rest(registered: Project, tmp_path: Path) -> None:
    paths = digits_of(registered, tmp_path)
    Image.open(paths[0]).resize((31, 47)).convert("RGB").save(tmp_path / "x-colour.jpg")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    done = registered.verb("predict", "models:/digits@champion", str(tmp_path), "--json", code=2, apart=True)
    result = json.loads(done.stdout)
    assert [Path(bad["file"]).name for bad in result["rejected"]] == ["bad.png"]
    assert "bad.png" in done.stderr
    answers = {Path(row["file"]).name: row["class"] for row in result["predictions"]}
    assert len(answers) == len(paths) + 1
    assert sum(name[0] == answer for name, answer in answers.items()) >= 10
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in result["predictions"])


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("models:/digitz@champion", "Known: digits"),
        ("models:/digits@best", "no 'best'"),
        ("models:/digits/9", "Known: 1"),
        ("digits", ""),
    ],
)
def test_unknown_models_list_the_known(registered: Project, tmp_path: Path, model: str, says: str) -> None:
    paths = digits_of(registered, tmp_path, 1)
    if says:
        with pytest.raises(InputError, match=says):
            predict(PredictRequest(model, paths), registered.settings, nothing)
    else:
        assert predict(PredictRequest(model, paths), registered.settings, nothing)["version"] == "1"


@pytest.fixture(scope="module")
def served(registered: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`mlflow models serve` on the champion; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path_factory.mktemp("serve") / "log").open("w")
    environment = {**registered.environment, "MLFLOW_TRACKING_URI": registered.settings.tracking}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/digits@champion"]
    child = subprocess.Popen(
        [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)],
        env=environment, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    limit = time.monotonic() + 90
    while True:
        try:
            if requests.get(f"{address}/ping", timeout=2).ok:
                break
        except requests.ConnectionError:
            assert child.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < limit, Path(log.name).read_text()
            time.sleep(0.3)
    yield address
    import os
    import signal

    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def test_serving_answers_as_predict_does(registered: Project, served: str, tmp_path: Path) -> None:
    paths = digits_of(registered, tmp_path)
    batch = np.stack([decode(path.read_bytes(), 1) for path in paths])
    reply = requests.post(f"{served}/invocations", json={"inputs": batch.tolist()}, timeout=60)
    assert reply.status_code == 200, reply.text
    served_classes = np.array(reply.json()["predictions"]).argmax(1)
    result = predict(PredictRequest("digits", paths), registered.settings, nothing)
    assert [row["class"] for row in result["predictions"]] == [str(c) for c in served_classes]
    one = requests.post(f"{served}/invocations", json={"inputs": np.zeros((1, 1, 20, 13), int).tolist()}, timeout=60)
    assert one.status_code == 200, "any size of image and of batch is served"


def test_the_registered_model_is_safe_and_described(registered: Project) -> None:
    import yaml

    tracker = Tracker(registered.settings)
    version = tracker._client.get_model_version_by_alias("digits", "champion")
    folder = Path(tracker._client.get_run(version.run_id).info.artifact_uri.removeprefix("file://")) / "model"
    described = yaml.safe_load((folder / "MLmodel").read_text())
    assert json.loads(described["signature"]["inputs"])[0]["tensor-spec"] == {
        "dtype": "uint8",
        "shape": [-1, 1, -1, -1],
    }
    assert described["metadata"]["assay"]["facts"]["classes"] == [str(i) for i in range(10)]
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert "model.pt2" in names
    assert not {name for name in names if name.endswith((".pkl", ".pickle", ".pth", ".pt"))}
    assert any(line.startswith("torch==") for line in (folder / "requirements.txt").read_text().splitlines())
