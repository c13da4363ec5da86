"""Pixels in, classes out: the same pixels in training and serving, and the metrics that scikit-learn gives."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.functional.classification import multiclass_calibration_error

from assay.config.dataset import DatasetConfig
from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset, prepare
from assay.data.raw import folder_digest
from assay.errors import InputError
from assay.tasks.classification import data as data_module
from assay.tasks.classification.config import Config
from assay.tasks.classification.data import Images, rows_of_classes
from assay.tasks.classification.model import Classifier, Served, make_network, resize
from assay.tasks.classification.serving import Serving
from assay.tasks.classification.task import Task, _summarize_class, source
from assay.train.context import LocalContext
from assay.train.engine import StepEngine
from assay.train.loop import evaluate
from assay.train.randomness import Draw
from tests.support.bad_images import CLASSES, make_folder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """48 pictures of many kinds in three classes."""
    root = tmp_path_factory.mktemp("pets")
    make_folder(root / "raw", 48, 0)
    config = {"source": {"kind": "image_folder", "path": "raw", "sha256": folder_digest(root / "raw")}}
    split = {"train": 0.5, "val": 0.25, "test": 0.25}
    card = prepare(
        root, "pets", DatasetConfig.model_validate({**config, "split": split}), root / "pets", lambda *_: None
    )
    return Dataset(root / "pets", card, "abc.dir")


def experiment(**task: Any) -> ExperimentConfig:
    small = {"name": "classification", "image_size": 8, "width": 4, **task}
    return ExperimentConfig.model_validate({"task": small, "data": "pets", "train": {"batch_size": 8}})


def built(dataset: Dataset, **task: Any) -> Task:
    torch.manual_seed(0)
    return Task.build(experiment(**task), dataset, LocalContext(Path("unused"), CPU, 1))


def draw(indices: list[int] | range, seed: int = 1, epoch: int = 0) -> Draw:
    return Draw(seed, epoch, np.array(indices, dtype=np.int64))


def picture(size: int = 8, channels: int = 1) -> Tensor:
    """[1, C, S, S], every pixel different."""
    return torch.arange(channels * size * size).reshape(1, channels, size, size).to(torch.uint8)


# Reading


@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_what_is_held_of_many_images_of_many_classes_is_little(monkeypatch: pytest.MonkeyPatch, balance: str) -> None:
    """A table of which image is of which class has 10 GB at the size of ImageNet."""
    labels = np.arange(20_000, dtype=np.int32) % 1000
    monkeypatch.setattr(data_module, "MEMORY", 0)
    large: Any = SimpleNamespace(
        card=SimpleNamespace(classes=[str(i) for i in range(1000)], channels=3), split=lambda name: Column(labels)
    )
    with Largest() as seen:
        images = Images(Config(balance=balance), large, "train")  # type: ignore[arg-type]
    assert seen.numbers <= len(labels)
    if balance == "sampling":
        assert [rows.tolist() for rows in images.of_class] == [list(range(i, 20_000, 1000)) for i in range(1000)]


@dataclass
class Column:
    """A packed split of which only the labels are there."""

    labels: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.labels)

    def column(self, name: str) -> np.ndarray[Any, Any]:
        return self.labels


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that is made meanwhile."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        self.numbers = max(self.numbers, made.numel() if isinstance(made, Tensor) else 0)
        return made


@pytest.mark.parametrize("columns", [1, 2])
def test_the_rows_of_each_class_that_is_shown(columns: int) -> None:
    targets = torch.tensor([4, 0, 4, 2, 0, 4])
    shown = targets if columns == 1 else torch.nn.functional.one_hot(targets, 6).float()
    assert [rows.tolist() for rows in rows_of_classes(shown)] == [[1, 4], [3], [0, 2, 5]]


# Resizing


@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 24), st.sampled_from([1, 3]), st.integers(0, 99))
def test_resizing_keeps_whole_steps_of_0_to_255(height: int, width: int, size: int, channels: int, seed: int) -> None:
    images = torch.randint(0, 2, (2, channels, height, width), generator=torch.Generator().manual_seed(seed)) * 255
    made = resize(images.to(torch.uint8), size)
    assert made.shape == (2, channels, size, size)
    assert made.dtype == torch.float32
    assert torch.equal(made, made.round())
    assert 0 <= made.min() <= made.max() <= 255
    assert torch.equal(made, made.to(torch.uint8).float())


def test_resizing_to_the_same_size_changes_nothing_and_a_flat_picture_stays_flat() -> None:
    assert torch.equal(resize(picture(), 8), picture().float())
    assert (resize(torch.full((1, 3, 30, 17), 77, dtype=torch.uint8), 8) == 77).all()


def test_fine_stripes_become_grey() -> None:
    stripes = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    stripes[..., ::4] = 255
    assert (resize(stripes, 4) - 255 / 4).abs().max() < 20  # without antialiasing they are not seen at all


def test_serving_sees_the_very_pixels_of_training(dataset: Dataset) -> None:
    task = built(dataset, image_size=12)
    served = Serving.export(task).module
    assert isinstance(served, Served)
    images, packed = Images(Config(image_size=12), dataset, "val"), dataset.split("val")
    seen: list[Tensor] = []
    task.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    for index in range(len(images)):
        path = dataset.folder / "one.png"
        path.write_bytes(packed.image(index))
        raw = Serving({"channels": 3}).read(path)
        with torch.no_grad():
            answer = served(torch.from_numpy(raw))
            pixels = images.load(np.array([index]), None)["image"]
            expected = task.model(pixels).softmax(1)
        assert raw.dtype == np.uint8
        assert torch.equal(seen[-2], seen[-1].float())
        assert torch.equal(answer, expected)
        path.unlink()


# Data


@pytest.mark.parametrize("augment", [{}, {"shift": 0.1, "flip": True}])
def test_streaming_gives_the_batches_of_memory(
    dataset: Dataset, augment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate({"image_size": 12, "augment": augment})
    held = source(config, dataset, "train")
    monkeypatch.setattr(data_module, "MEMORY", 0)
    streamed = source(config, dataset, "train")
    assert (held.in_memory, streamed.in_memory, streamed.pixels) == (True, False, None)
    assert len(held) == len(streamed) == dataset.card.samples["train"]
    for drawn in (None, draw([3, 0, 7])):
        one, other = (images.load(np.array([3, 0, 7]), drawn) for images in (held, streamed))
        assert one.keys() == other.keys() == {"image", "target", "index"}
        for name in one:
            assert one[name].dtype == other[name].dtype
            assert torch.equal(one[name], other[name])
    assert one["image"].shape == (3, 3, 12, 12)


def test_labels_are_those_of_the_packed_samples(dataset: Dataset) -> None:
    images, packed = Images(Config(), dataset, "test"), dataset.split("test")
    labels = images.load(np.arange(len(images)), None)["target"]
    names = packed.column("name").to_pylist()
    assert [CLASSES[int(label)] for label in labels] == [name.split("/")[0] for name in names]


# Networks


@given(st.integers(4, 70), st.integers(4, 12), st.sampled_from([1, 3]), st.integers(2, 5), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_networks_take_every_size_and_width(size: int, width: int, channels: int, classes: int, batch: int) -> None:
    config = Config(image_size=size, width=width)
    model = Classifier(make_network(config, channels, classes, True)[0], [0.5] * channels, [0.2] * channels)
    for mode in (True, False):
        logits = model.train(mode)(torch.zeros(batch, channels, size, size, dtype=torch.uint8))
        assert logits.shape == (batch, classes)
        assert logits.isfinite().all()


def test_pixels_are_normalized_by_the_card() -> None:
    model = Classifier(make_network(Config(image_size=8, width=4), 3, 2, True)[0], [0.5, 0.25, 0.0], [0.1, 0.2, 0.0])
    seen: list[Tensor] = []
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.full((2, 3, 8, 8), 51, dtype=torch.uint8))
    expected = torch.tensor([-3.0, -0.25, 0.2 / 1e-3])  # a channel without contrast does not become infinite
    torch.testing.assert_close(seen[0][0, :, 0, 0], expected, rtol=1e-4, atol=1e-4)


# The task


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_the_metrics_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    actual, predicted = zip(*pairs, strict=True)
    table = torch.zeros(4, 4, dtype=torch.int64)
    for a, p in pairs:
        table[a, p] += 1
    rows = torch.tensor([[i, 0.0, a, p, 0.5, float(a != p)] for i, (a, p) in enumerate(pairs)])
    found = _summarize_class({"confusion": table, "samples": rows})
    assert found["accuracy"] == pytest.approx(accuracy_score(actual, predicted))
    expected = f1_score(actual, predicted, labels=range(4), average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)


@pytest.mark.parametrize("size", [1, 5, 100])
def test_an_evaluation_counts_every_sample(dataset: Dataset, size: int, tmp_path: Path) -> None:
    task, images = built(dataset), source(Config(image_size=8), dataset, "test")
    torch.nn.init.normal_(task.model.network[-1].weight, std=5)  # type: ignore[index]
    metrics, pictures = evaluate(task, images, "test", size, LocalContext(tmp_path, CPU, 1))
    with torch.no_grad():
        batch = images.load(np.arange(len(images)), None)
        logits = task.model.eval()(batch["image"])
    actual, said, probabilities = batch["target"], logits.argmax(1), logits.softmax(1)
    assert len(set(said.tolist())) > 1  # else the table says little
    expected = {
        "test/accuracy": accuracy_score(actual, said),
        "test/macro_f1": f1_score(actual, said, labels=range(3), average="macro", zero_division=0),
        "test/loss": torch.nn.functional.cross_entropy(logits, actual).item(),
        "test/ece": multiclass_calibration_error(probabilities, actual, 3, n_bins=15).item(),
    }
    assert metrics == pytest.approx(expected, rel=1e-5)
    drawn = {picture.name: picture for picture in pictures}
    assert list(drawn) == ["confusion", "classes", "reliability", "mistakes"]
    cells = [(row["actual"], row["predicted"]) for row in drawn["confusion"].table]
    assert cells == [(a, p) for a in CLASSES for p in CLASSES]
    pairs = list(zip(actual.tolist(), said.tolist(), strict=True))
    counts = [row["count"] for row in drawn["confusion"].table]
    assert counts == [pairs.count((a, p)) for a in range(3) for p in range(3)]
    assert sum(row["samples"] for row in drawn["classes"].table) == len(images)
    assert sum(row["share"] for row in drawn["reliability"].table) == pytest.approx(1)
    worst = [(row["sample"], row["actual"]) for row in drawn["mistakes"].table]
    losses = torch.nn.functional.cross_entropy(logits, actual, reduction="none")
    order = [int(i) for i in losses.argsort(descending=True) if actual[i] != said[i]]
    assert worst == [(i, CLASSES[int(actual[i])]) for i in order[:16]]
    assert all(Image.open(io.BytesIO(picture.png)).format == "PNG" for picture in pictures)


def test_five_best_count_where_there_are_more_classes() -> None:
    rows = torch.zeros(4, 6, dtype=torch.float64)
    rows[:, 5] = torch.tensor([0, 4, 5, 6])
    found = _summarize_class({"confusion": torch.ones(7, 7), "samples": rows})
    assert found["top5"] == 0.5
    assert "top5" not in _summarize_class({"confusion": torch.ones(5, 5), "samples": rows})


def test_training_learns_a_batch_by_heart(dataset: Dataset) -> None:
    task = built(dataset, dropout=0)
    settings = experiment()
    optimizer = settings.optimizer.model_copy(update={"lr": 0.01})
    for group in task.optimizers["model"].param_groups:
        group["lr"] = 0.01
    engine = StepEngine(task.optimizers, settings.train, optimizer, CPU, 60)
    batch = source(Config(image_size=8), dataset, "train").load(np.arange(8), None)
    losses = []
    for step in range(60):
        engine.begin(step)
        losses.append(task.train_step(batch, engine)["loss"].item())
    assert losses[-1] < 0.1 * losses[0]


def test_what_is_exported_takes_any_size_and_answers_in_words(dataset: Dataset) -> None:
    export = Serving.export(built(dataset))
    assert export.example.dtype == np.uint8
    assert export.dynamic == (0, 2, 3)
    assert not export.module.training
    with torch.no_grad():
        answers = export.module(torch.zeros(2, 3, 31, 57, dtype=torch.uint8)).numpy()
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)
    assert export.metadata == {"classes": list(CLASSES), "channels": 3}
    outputs = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], dtype=np.float64)
    one, other = (dict(answer.values) for answer in Serving(export.metadata).describe(export.example, outputs))
    assert one == {
        "class": "berry", "probability": 0.7, "probabilities": {"apple": 0.1, "berry": 0.7, "cherry": 0.2},
    }  # fmt: skip
    assert (other["class"], other["probability"]) == ("apple", 0.5)
    assert [type(v) for v in one["probabilities"].values()] == [float] * 3


@pytest.mark.parametrize(("name", "content"), [("missing.png", None), ("text.png", b"no picture"), ("folder", "")])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes | str | None) -> None:
    path = tmp_path / name
    if content == "":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=name):
        Serving({"channels": 1}).read(path)


def test_weights_come_back(dataset: Dataset) -> None:
    task, other = built(dataset), built(dataset)
    with torch.no_grad():
        for tensor in task.state_dict().values():
            tensor.add_(1)
    state = task.state_dict()
    assert all(name.startswith("model/") for name in state)
    other.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
    del state["model/mean"]
    with pytest.raises(RuntimeError, match="mean"):
        other.load_state_dict(state)
