"""A detector learns, counts its positives over all workers, is served as it was evaluated, and refuses bad input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from assay.config.dataset import DatasetConfig
from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset, prepare
from assay.data.images import decode
from assay.errors import InputError
from assay.tasks.detection.config import DETECTORS, Config
from assay.tasks.detection.serving import Serving
from assay.tasks.detection.task import Task, source
from assay.train.context import LocalContext
from assay.train.engine import StepEngine
from assay.train.loop import evaluate
from assay.train.randomness import Draw
from tests.support.ranks import Group, ThreadContext

CPU = torch.device("cpu")
TINY = {"name": "detection", "image_size": 64, "strides": [8, 16], "width": 32, "depth": 1}
SSDLITE = "torchvision:ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """40 scenes of digits, 64 pixels a side."""
    root = tmp_path_factory.mktemp("scenes")
    config = DatasetConfig.model_validate({"source": {"kind": "digit_scenes", "scenes": 40, "size": 64}})
    return Dataset(root / "scenes", prepare(root, "scenes", config, root / "scenes", lambda *_: None), "0" * 32)


def experiment(train: Mapping[str, Any] | None = None, **task: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {"task": {**TINY, **task}, "data": "scenes", "train": {"batch_size": 8, **(train or {})}}
    )


def here() -> LocalContext:
    return LocalContext(Path("unused"), CPU, 1)


def built(dataset: Dataset, context: LocalContext | None = None, **task: Any) -> Task:
    torch.manual_seed(0)
    return Task.build(experiment(**task), dataset, context or here())


def engine(task: Task, config: ExperimentConfig, steps: int) -> StepEngine:
    return StepEngine(task.optimizers, config.train, config.optimizer, CPU, steps)


def test_the_loss_falls_on_eight_images(dataset: Dataset) -> None:
    config = experiment(backbone_lr=1.0)
    task = built(dataset, backbone_lr=1.0)
    batch = source(config.task, dataset, "train").load(np.arange(8), None)
    steps, losses = engine(task, config, 20), []
    task.train(True)
    for step in range(20):
        steps.begin(step)
        losses.append(task.train_step(batch, steps))
        steps.end()
    assert losses[-1]["box_loss"] < 0.6 * losses[0]["box_loss"]
    assert losses[-1]["loss"] < 0.8 * losses[0]["loss"]
    assert torch.isclose(losses[3]["loss"], losses[3]["class_loss"] + losses[3]["box_loss"])


def test_the_layers_with_the_largest_maps_of_a_pretrained_backbone_stay(dataset: Dataset) -> None:
    named = dict(built(dataset).modules["detector"].backbone.body.named_parameters())
    held = {name for name, parameter in named.items() if not parameter.requires_grad}
    assert all(name.startswith(("conv_stem", "bn1", "blocks.0.", "blocks.1.0.")) for name in held)
    assert {"conv_stem.weight", "blocks.0.0.bn2.weight"} <= held
    assert all(p.requires_grad for p in built(dataset, weights="none").modules["detector"].parameters())


def test_the_statistics_of_a_pretrained_backbone_stay(dataset: Dataset) -> None:
    task = built(dataset)
    config = experiment()
    before = {n: b.clone() for n, b in task.detector.backbone.named_buffers()}
    steps = engine(task, config, 1)
    task.train(True)
    steps.begin(0)
    task.train_step(source(config.task, dataset, "train").load(np.arange(4), None), steps)
    assert all(torch.equal(before[n], b) for n, b in task.detector.backbone.named_buffers())
    random = built(dataset, weights="none")
    random.train(True)
    assert all(m.training for m in random.detector.backbone.modules())


def test_two_halves_count_their_positives_together(dataset: Dataset, tmp_path: Path) -> None:
    config = experiment(ema=0.0)
    images = source(config.task, dataset, "train")
    boxes = np.array([len(labels) for _, labels, _ in images.truth])
    order = np.argsort(boxes)
    halves = [order[:4], order[-4:]]  # few boxes on one worker, many on the other
    assert boxes[halves[0]].sum() < boxes[halves[1]].sum()

    def gradients(task: Task, indices: np.ndarray[Any, Any]) -> tuple[float, list[Tensor]]:
        task.train(True)
        losses = task.detector.losses(task.wrapped, images.load(indices, None), task._over_workers)
        losses["loss"].backward()
        return losses["loss"].item(), [p.grad for p in task.detector.parameters() if p.grad is not None]

    alone, expected = gradients(built(dataset, ema=0.0), np.concatenate(halves))
    group = Group(2)
    tasks = [built(dataset, ThreadContext(tmp_path, group, rank), ema=0.0) for rank in range(2)]
    both = group.run(lambda rank: gradients(tasks[rank], halves[rank]))
    assert (both[0][0] + both[1][0]) / 2 == pytest.approx(alone, rel=1e-5)
    assert both[0][0] != pytest.approx(both[1][0], rel=1e-2)
    for one, two in zip(expected, both[0][1], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5 * float(one.abs().max() + 1))


def test_served_is_evaluated(dataset: Dataset) -> None:
    """What a file of a split gets when it is served are the rows that its evaluation scores."""
    task = built(dataset, image_size=[96, 64], threshold=0.0)
    task.train(False)
    config = experiment(image_size=[96, 64])
    images = source(config.task, dataset, "val")
    served = Serving.export(task).module
    with torch.no_grad():
        for index in range(len(images)):
            batch = images.load(np.array([index]), None)
            rows: dict[str, Tensor] = {}

            class Seen:
                add_rows = staticmethod(rows.__setitem__)

            task.eval_step(batch, Seen())  # type: ignore[arg-type]
            raw = decode(bytes(images.packed.image(index)), 3)[None]
            answer = served(torch.from_numpy(raw))[0]
            torch.testing.assert_close(rows["detections"][:, 1:].float(), answer[answer[:, 4] > 0], rtol=0, atol=0)
            torch.testing.assert_close(rows["truth"][:, 1:5].float(), images.truth[index][0], rtol=0, atol=0)


def test_the_export_answers_to_the_bit_at_other_sizes(dataset: Dataset) -> None:
    task = built(dataset)
    export = Serving.export(task)
    shapes = (dict.fromkeys(export.dynamic, torch.export.Dim.AUTO),)
    program = torch.export.export(export.module, (torch.from_numpy(export.example),), dynamic_shapes=shapes).module()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for shape in ((3, 3, 64, 64), (1, 3, 41, 130), (2, 3, 200, 90)):
            images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            answer = program(images)
            assert torch.equal(answer, export.module(images))
            assert answer.shape == (shape[0], 100, 6)
            assert answer.dtype == torch.float32
            assert answer[..., :4].min() >= 0
            assert (answer[..., [0, 2]] <= shape[3]).all()
            assert (answer[..., [1, 3]] <= shape[2]).all()
            assert (answer[:, 1:, 4] <= answer[:, :-1, 4]).all(), "best first"


def test_describes_in_words_and_a_picture(dataset: Dataset) -> None:
    outputs = np.zeros((1, 5, 6), dtype=np.float32)
    outputs[0, 0] = [4, 6, 40, 50, 0.75, 3]
    outputs[0, 1] = [1, 1, 9, 9, 0.2, 1]
    metadata = {"classes": [str(i) for i in range(10)], "channels": 1, "threshold": 0.5}
    (answer,) = Serving(metadata).describe(np.zeros((1, 1, 64, 64), dtype=np.uint8), outputs)
    assert json.loads(json.dumps(answer.values)) == {"boxes": [{"class": "3", "score": 0.75, "box": [4, 6, 40, 50]}]}
    assert answer.pictures[0].png.startswith(b"\x89PNG")


def test_reads_a_file_and_names_a_bad_one(tmp_path: Path, dataset: Dataset) -> None:
    good = tmp_path / "scene.png"
    good.write_bytes(dataset.split("test").image(0))
    assert Serving({"channels": 1}).read(good).shape == (1, 1, 64, 64)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    with pytest.raises(InputError, match="bad.png"):
        Serving({"channels": 3}).read(bad)


@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_a_detector_of_torchvision_steps_evaluates_and_answers(name: str, dataset: Dataset) -> None:
    given = {"architecture": f"torchvision:{name}", "weights": "none", "detections": 20}
    task, config = built(dataset, **given), experiment(**given)
    Task.check(config, dataset)
    before = {key: value.clone() for key, value in task.state_dict().items()}
    steps = engine(task, config, 1)
    task.train(True)
    steps.begin(0)
    losses = task.train_step(source(config.task, dataset, "train").load(np.arange(4), None), steps)
    steps.end()
    assert len(losses) >= 3
    assert torch.isclose(losses["loss"], torch.stack([v for n, v in losses.items() if n != "loss"]).sum())
    assert any(not torch.equal(before[key], value) for key, value in task.state_dict().items())
    metrics, pictures = evaluate(task, source(config.task, dataset, "val"), "val", 4, here())
    assert 0 <= metrics["val/map"] <= 1
    assert {picture.name for picture in pictures} == {"boxes", "precision_recall"}
    export = Serving.export(task)
    assert not export.traceable
    with torch.no_grad():
        answer = export.module(torch.zeros(2, 3, 50, 90, dtype=torch.uint8))
    assert answer.shape == (2, 20, 6)
    assert ((answer[..., 5] >= 0) & (answer[..., 5] < 10)).all()


def test_every_named_detector_is_one_of_torchvision() -> None:
    from torchvision import models

    assert {name.partition(":")[2] for name in DETECTORS} <= set(models.list_models(module=models.detection))


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"image_size": 72}, {}, "task.image_size: 72 is not a multiple of the stride 16: use"),
    ({"architecture": "timm:tf_efficientnet_lite9"}, {}, "tf_efficientnet_lite"),
    ({"architecture": "torchvision:fcos_resnet50_fp", "weights": "none"}, {}, "torchvision:fcos_resnet50_fpn is near"),
    ({"architecture": "timm:resnet18", "weights": "none", "strides": [4, 8], "image_size": 68}, {}, "use 64"),
    ({"architecture": "timm:vit_tiny_patch16_224", "weights": "none", "image_size": 224}, {}, r"maps at the strides"),
    ({"weights": "missing.pth"}, {}, "missing.pth"),
    ({"weights": "none"}, {"batch_size": 2}, "train.batch_size: 2 is too small"),
    ({"architecture": SSDLITE, "weights": "none"}, {"compile": True}, "train.compile"),
    ({"architecture": SSDLITE}, {}, "task.weights: imagenet fits no part"),
    ({"architecture": SSDLITE, "weights": "missing.pth"}, {}, "missing.pth"),
]


@pytest.mark.parametrize(("task", "train", "line"), REFUSED)
def test_refuses_what_cannot_work(task: dict[str, Any], train: dict[str, Any], line: str, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=line) as caught:
        Task.check(experiment(train, **task), dataset)
    assert "\n" not in str(caught.value)


def test_refuses_data_without_boxes(dataset: Dataset) -> None:
    other = Dataset(dataset.folder, dataset.card.model_copy(update={"annotation": "class"}), dataset.hash)
    with pytest.raises(InputError, match="not boxes"):
        Task.check(experiment(), other)
    none = {**dataset.card.counts, "val": dict.fromkeys(dataset.card.classes, 0)}
    other = Dataset(dataset.folder, dataset.card.model_copy(update={"counts": none}), dataset.hash)
    with pytest.raises(InputError, match="no box in val"):
        Task.check(experiment(), other)


def test_weights_of_a_whole_detector_come_from_a_file(dataset: Dataset, tmp_path: Path) -> None:
    given = {"architecture": SSDLITE, "weights": "none", "ema": 0.0}
    first = built(dataset, **given)
    torch.save(first.detector.detector.state_dict(), tmp_path / "whole.pth")
    torch.manual_seed(5)
    config = experiment(**{**given, "weights": str(tmp_path / "whole.pth")})
    again = Task.build(config, dataset, here())
    for key, value in first.detector.state_dict().items():
        assert torch.equal(value, again.detector.state_dict()[key]), key
    assert "whole.pth" in again.notes["pretrained_weights"]
    assert config.task.files == (str(tmp_path / "whole.pth"),)


def test_the_starter_fits_its_data(dataset: Dataset) -> None:
    block = Config.starter(dataset.card)
    assert block is not None
    config = ExperimentConfig.model_validate({**block, "data": "scenes"})
    Task.check(config, dataset)
    assert config.task.size == (64, 64)
    wide = dataset.card.model_copy(update={"median_size": [480, 640]})
    block = Config.starter(wide)
    assert block is not None
    assert block["task"]["image_size"] == [256, 320]
    assert Config.starter(dataset.card.model_copy(update={"annotation": "class"})) is None


def test_augmentation_follows_the_draw(dataset: Dataset) -> None:
    given = {"augment": {"zoom": 1.5, "flip": "both", "mosaic": 0.5, "colour": 0.3}}
    images = source(experiment(**given).task, dataset, "train")
    whole = images.load(np.arange(6), Draw(1, 2, np.arange(6)))
    part = images.load(np.array([4, 2]), Draw(1, 2, np.array([4, 2])))
    assert torch.equal(whole["image"][[4, 2]], part["image"])
    seen = part["labels"].shape[1]
    assert torch.equal(whole["boxes"][[4, 2], :seen], part["boxes"])
    other = images.load(np.arange(6), Draw(1, 3, np.arange(6)))
    assert not torch.equal(whole["image"], other["image"])
