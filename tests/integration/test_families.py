"""Every experiment of params.yaml from its data to an answer: two Ray workers, evaluation, registration, prediction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from assay.data.dataset import open_dataset
from assay.errors import InputError
from assay.tracking.tracker import Tracker
from assay.usecases.evaluate import evaluate
from assay.usecases.predict import PredictRequest, predict
from assay.usecases.promote import register
from tests.conftest import REPOSITORY, Project
from tests.support.families import PARAMS, one_of_each_task


@pytest.fixture(scope="module")
def project(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One project with the data of all experiments; a hundred scenes will do."""
    project = template.copy(tmp_path_factory.mktemp("families") / "p")
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for dataset in params["datasets"].values():
        if "scenes" in dataset["source"]:
            dataset["source"]["scenes"] = 100
    (project.root / "params.yaml").write_text(yaml.safe_dump(params))
    project.run("dvc", "repro", "-q", "data")
    return project


def asked(name: str, project: Project, folder: Path) -> PredictRequest:
    """What to ask of the first version of a model: a picture of the test split; samples, where it takes no file."""
    data = PARAMS.experiments[name].data
    image = folder / "image"
    dataset = open_dataset(project.root, data, project.settings.dataset_folder(data))
    image.write_bytes(bytes(dataset.split("test").image(0)))
    address = f"models:/{name}/1"
    request = PredictRequest(address, [image], out=folder / "out")
    if not predict(request, project.settings, lambda *_: None)["rejected"]:
        return request
    return PredictRequest(address, [], count=3, out=folder / "out")


@pytest.mark.parametrize("name", one_of_each_task(PARAMS.experiments))
def test_from_data_to_an_answer(name: str, project: Project, shared_ray: None, tmp_path: Path) -> None:
    record = project.train(name, "train.epochs=1", "train.workers=2")
    assert record["status"] == "FINISHED"
    headline = PARAMS.experiments[name].task.headline.metric
    assert f"val/{headline}" in record["metrics"]
    assert int(record["facts"]["parameters"]) > 0

    found = evaluate(record["run_id"], "test", project.settings, lambda _: None)
    assert f"test/{headline}" in found["metrics"]
    tracker = Tracker(project.settings)
    assert any(file.startswith("test-") for file in tracker.names(record["run_id"], "pictures"))

    model = register(record["run_id"], project.settings)
    assert (model["model"], model["version"]) == (name, "1")
    folder = Path(tracker._client.get_run(record["run_id"]).info.artifact_uri.removeprefix("file://")) / "model"
    signature = yaml.safe_load((folder / "MLmodel").read_text())["signature"]
    assert json.loads(signature["inputs"])[0]["tensor-spec"]["shape"][0] == -1
    assert not [path for path in folder.rglob("*") if path.suffix in {".pkl", ".pickle", ".pth", ".pt"}]

    request = asked(name, project, tmp_path)
    answers = predict(request, project.settings, lambda *_: None)["predictions"]
    assert len(answers) == (request.count or 1)
    for answer in answers:
        assert len(answer) > 1
        for picture in answer.get("pictures", []):
            assert Path(picture).read_bytes().startswith(b"\x89PNG")


def test_predict_asks_for_files_or_a_count(project: Project) -> None:
    with pytest.raises(InputError, match="name files or folders, or, for a generative model, use --count"):
        predict(PredictRequest("digits", []), project.settings, lambda *_: None)


UNTRACEABLE = """
datasets:
  few: {source: {kind: digit_scenes, scenes: 40, size: 64}}
experiments:
  whole:
    task: {name: detection, architecture: "torchvision:ssdlite320_mobilenet_v3_large", weights: none, image_size: 64}
    data: few
    train: {epochs: 1, batch_size: 8, workers: 0}
"""


@pytest.mark.thorough
def test_a_network_that_cannot_be_traced_is_kept_as_code(template: Project, tmp_path: Path) -> None:
    project = template.copy(tmp_path / "p")
    (project.root / "params.yaml").write_text(UNTRACEABLE)
    project.run("dvc", "repro", "-q", "data@few")
    run_id = project.train("whole")["run_id"]
    evaluate(run_id, "test", project.settings, lambda _: None)
    register(run_id, project.settings)
    folder = Path(Tracker(project.settings)._client.get_run(run_id).info.artifact_uri.removeprefix("file://")) / "model"
    assert not [path for path in folder.rglob("*") if path.suffix in {".pkl", ".pickle", ".pth", ".pt"}]
    assert (folder / "artifacts/trained/model.safetensors").exists()
    image = tmp_path / "scene"
    dataset = open_dataset(project.root, "few", project.settings.dataset_folder("few"))
    image.write_bytes(bytes(dataset.split("test").image(0)))
    request = PredictRequest("models:/whole/1", [image, project.root / "params.yaml"], out=tmp_path / "out")
    result = predict(request, project.settings, lambda *_: None)
    assert "boxes" in result["predictions"][0]
    assert [Path(bad["file"]).name for bad in result["rejected"]] == ["params.yaml"]
