"""Several labels an image, rare classes, and the first experiment that is proposed for a dataset."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torchmetrics.functional.classification import multilabel_average_precision

from assay.config.card import Card
from assay.config.dataset import DatasetConfig
from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset, prepare
from assay.errors import InputError
from assay.tasks.classification.config import LITE, Config
from assay.tasks.classification.metrics import best_thresholds, calibration_error, mean_average_precision
from assay.tasks.classification.serving import Serving
from assay.tasks.classification.task import Task, _weights, source
from assay.train.context import LocalContext
from assay.train.loop import evaluate
from assay.train.randomness import Draw

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """60 scenes with boxes around one to four digits."""
    root = tmp_path_factory.mktemp("scenes")
    config = DatasetConfig.model_validate({"source": {"kind": "digit_scenes", "scenes": 60, "size": 64}})
    return Dataset(root / "scenes", prepare(root, "scenes", config, root / "scenes", lambda *_: None), "abc.dir")


def experiment(**task: Any) -> ExperimentConfig:
    block = {"name": "classification", "image_size": 16, "width": 4, "multi_label": True, **task}
    return ExperimentConfig.model_validate({"task": block, "data": "scenes", "train": {"batch_size": 8}})


def built(dataset: Dataset, **task: Any) -> Task:
    torch.manual_seed(0)
    config = experiment(**task)
    Task.check(config, dataset)
    return Task.build(config, dataset, LocalContext(Path("unused"), CPU, 1))


def draw(count: int, epoch: int = 0) -> Draw:
    return Draw(0, epoch, np.arange(count))


def test_targets_are_the_classes_that_a_scene_shows(scenes: Dataset) -> None:
    images, packed = source(experiment().task, scenes, "train"), scenes.split("train")  # type: ignore[arg-type]
    targets = images.load(np.arange(len(images)), None)["target"]
    assert targets.dtype == torch.float32
    for row in range(len(images)):
        assert set(targets[row].nonzero()[:, 0].tolist()) == set(packed.row(row)["labels"])


def test_thresholds_are_fitted_on_validation_and_kept_for_the_test(scenes: Dataset, tmp_path: Path) -> None:
    task, context = built(scenes), LocalContext(tmp_path, CPU, 1)
    splits = {split: source(task.config, scenes, split) for split in ("val", "test")}
    assert task.model.thresholds is not None
    evaluate(task, splits["val"], "val", 8, context)
    assert (task.model.thresholds == 0.5).all(), "an evaluation outside of training fits nothing"
    task.train(True)
    validated, _ = evaluate(task, splits["val"], "val", 8, context)
    fitted = task.model.thresholds.clone()
    assert (fitted != 0.5).any()
    metrics, pictures = evaluate(task, splits["test"], "test", 8, context)
    assert torch.equal(task.model.thresholds, fitted)
    again, _ = evaluate(task, splits["val"], "val", 3, context)
    assert again == pytest.approx(validated)

    other = built(scenes)
    other.load_state_dict(task.state_dict())
    assert evaluate(other, splits["test"], "test", 5, context)[0] == pytest.approx(metrics)
    batch = splits["test"].load(np.arange(len(splits["test"])), None)
    with torch.no_grad():
        probabilities = task.model(batch["image"]).sigmoid()
    said, targets = probabilities >= fitted, batch["target"].int()
    assert metrics["test/macro_f1"] == pytest.approx(f1_score(targets, said, average="macro", zero_division=0))
    assert metrics["test/accuracy"] == pytest.approx((said == targets.bool()).all(1).float().mean().item())
    assert [picture.name for picture in pictures] == ["classes", "mistakes"]
    shown = [row["samples"] for row in pictures[0].table]
    assert shown == targets.sum(0).tolist()


def test_answers_are_the_labels_above_their_thresholds(scenes: Dataset) -> None:
    task = built(scenes)
    assert task.model.thresholds is not None
    task.model.thresholds[:3] = torch.tensor([0.9, 0.1, 0.5])
    export = Serving.export(task)
    with torch.no_grad():
        outputs = export.module(torch.from_numpy(export.example)).numpy()
    np.testing.assert_allclose(outputs, task.model(torch.from_numpy(export.example)).sigmoid().detach(), rtol=1e-5)
    outputs = np.full((1, 10), 0.2)
    outputs[0, :3] = 0.8
    (answer,) = Serving(json.loads(json.dumps(export.metadata))).describe(export.example, outputs)
    assert answer.values["labels"] == ["1", "2"]
    assert answer.values["probabilities"]["0"] == 0.8


def test_the_best_threshold_is_no_worse_than_any_other() -> None:
    random = np.random.default_rng(0)
    targets = (random.random((60, 4)) < 0.3).astype(float)
    targets[:, 3] = 0
    probabilities = np.round(np.clip(0.4 * targets + 0.6 * random.random((60, 4)), 0, 1), 2)
    chosen = best_thresholds(targets, probabilities)
    for label in range(3):
        scores = [f1_score(targets[:, label], probabilities[:, label] >= t) for t in np.linspace(0, 1, 201)]
        assert f1_score(targets[:, label], probabilities[:, label] >= chosen[label]) == pytest.approx(max(scores))
    assert chosen[3] == 0.5


def test_average_precision_is_that_of_torchmetrics() -> None:
    random = np.random.default_rng(1)
    targets, probabilities = (random.random((50, 5)) < 0.4).astype(int), random.random((50, 5))
    expected = multilabel_average_precision(torch.from_numpy(probabilities), torch.from_numpy(targets), 5)
    assert mean_average_precision(targets, probabilities) == pytest.approx(expected.item())


@pytest.mark.parametrize(("sure", "expected"), [(0.75, 0.0), (1.0, 0.25), (0.6, 0.15)])
def test_calibration_compares_sureness_with_being_right(sure: float, expected: float) -> None:
    right = torch.tensor([True, True, True, False] * 5)
    assert calibration_error(torch.full((20,), sure), right) == pytest.approx(expected)


# Rare classes


def test_weights_have_the_mean_1(scenes: Dataset) -> None:
    task = built(scenes, balance="weights")
    targets = source(task.config, scenes, "train").targets
    assert task.weight is not None
    weighted = targets * task.weight[0] + (1 - targets) * task.weight[1]
    torch.testing.assert_close(weighted.mean(0), torch.ones(10))
    torch.testing.assert_close((targets * task.weight[0]).mean(0), torch.full((10,), 0.5))


def test_each_class_weighs_the_same_where_an_image_has_one(scenes: Dataset) -> None:
    counts = [30, 6, 4]
    facts = {"train": dict(zip("abc", counts, strict=True))}
    weight = _weights(Config(balance="weights"), Dataset(scenes.folder, card(scenes, counts=facts), "abc.dir"))
    shares = weight * torch.tensor(counts) / sum(counts)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3))


def test_sampling_gives_each_class_its_due_and_follows_the_sample(scenes: Dataset) -> None:
    config = Config(image_size=16, multi_label=True, balance="sampling")
    images = source(config, scenes, "train")
    rare = int(images.targets.sum(0).argmin())
    chosen = [images.load(np.arange(len(images)), draw(len(images), epoch))["index"] for epoch in range(20)]
    seen = Counter(torch.cat(chosen).tolist())
    shown = sum(count for sample, count in seen.items() if images.targets[sample, rare])
    assert shown / sum(seen.values()) > images.targets[:, rare].mean() * 1.2
    alone = images.load(np.array([5]), Draw(0, 0, np.array([5])))
    assert alone["index"].item() == chosen[0][5].item()


def test_partners_follow_the_sample(scenes: Dataset) -> None:
    config = Config.model_validate({"image_size": 16, "multi_label": True, "mixup": 1, "augment": {"shift": 0.2}})
    images = source(config, scenes, "train")
    together, alone = images.load(np.arange(9), draw(9)), images.load(np.array([7]), Draw(0, 0, np.array([7])))
    for key in ("image", "target"):
        torch.testing.assert_close(together[key][7], alone[key][0], rtol=0, atol=1e-3)
    assert ((together["target"] > 0) & (together["target"] < 1)).any()
    assert (images.load(np.arange(9), None)["target"] % 1 == 0).all()


def test_settings_must_agree_with_the_data(scenes: Dataset) -> None:
    with pytest.raises(InputError, match="multi_label: true"):
        Task.check(experiment(multi_label=False), scenes)
    counts = {split: {**of, "3": 0} for split, of in scenes.card.counts.items()}
    poor = Dataset(scenes.folder, scenes.card.model_copy(update={"counts": counts}), "abc.dir")
    with pytest.raises(InputError, match="no sample of 3"):
        Task.check(experiment(balance="weights"), poor)
    styles = Dataset(scenes.folder, scenes.card.model_copy(update={"annotation": "style"}), "abc.dir")
    with pytest.raises(InputError, match="nothing to classify"):
        Task.check(experiment(), styles)


# The first experiment


def card(scenes: Dataset, **changes: Any) -> Card:
    return scenes.card.model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "architecture", "size"),
    [
        ({"short_side": 200}, LITE, 128),
        ({"short_side": 50}, LITE, 96),
        ({"short_side": 32}, LITE, 96),
        ({"short_side": 28}, "small_cnn", 28),
        ({"short_side": 200, "channels": 1}, "small_cnn", 128),
    ],
)
@pytest.mark.parametrize("annotation", ["class", "labels"])
def test_the_first_experiment_fits_the_images(
    scenes: Dataset, changes: dict[str, Any], architecture: str, size: int, annotation: str
) -> None:
    block = Config.starter(card(scenes, annotation=annotation, **changes))
    assert block is not None
    config = ExperimentConfig.model_validate({**block, "data": "scenes"})
    assert isinstance(config.task, Config)
    assert (config.task.architecture, config.task.image_size) == (architecture, size)
    assert config.task.multi_label == (annotation == "labels")
    assert list(config.gate.min) == [f"test/{config.task.headline.metric}"]


def test_the_first_gate_is_above_what_needs_no_model(scenes: Dataset) -> None:
    counts = {"test": {"a": 30, "b": 10}}
    facts = {"samples": {"train": 100, "val": 10, "test": 40}, "counts": counts}
    one = Config.starter(card(scenes, annotation="class", **facts))
    several = Config.starter(card(scenes, annotation="labels", **facts))
    assert one is not None
    assert several is not None
    assert one["gate"] == {"min": {"test/accuracy": 0.76}}
    blind = f1_score(np.repeat([[1, 1], [1, 0], [0, 0]], [10, 20, 10], axis=0), np.ones((40, 2)), average="macro")
    assert several["gate"]["min"]["test/macro_f1"] == pytest.approx(blind + 0.01, abs=0.011)
    assert Config.starter(card(scenes, annotation="boxes")) is None
