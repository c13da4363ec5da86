"""Style transfer: its losses against numbers worked out by hand, its norm, its crops, and both of its methods."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from assay.config.dataset import DatasetConfig
from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset, prepare
from assay.errors import InputError
from assay.tasks.style_transfer.config import Config
from assay.tasks.style_transfer.data import CONTENT, STYLE, Crops, Images, fitted, resized
from assay.tasks.style_transfer.losses import gram, rolled, total_variation
from assay.tasks.style_transfer.model import ConditionalNorm, Painter, Served
from assay.tasks.style_transfer.serving import Serving, names
from assay.tasks.style_transfer.task import Task, source
from assay.train import checkpoint, pulse
from assay.train.context import LocalContext
from assay.train.folder import STOP
from assay.train.loop import Outcome, evaluate, train
from assay.train.randomness import Draw, key

LAYERS = {"style_layers": ["conv1", "layer1"], "content_layers": ["layer1"]}
PERCEPTUAL = {"architecture": "torchvision:resnet18", "weights": "none", **LAYERS}
"""Small and random: what is learnt from it looks like nothing, and obeys the same laws."""
SMALL = {"image_size": 32, "crop_size": 24, "crops_per_image": 2, "width": 4, "blocks": 1, "perceptual": PERCEPTUAL}
ADAM = {"name": "adam", "lr": 0.02}


@pytest.fixture(scope="module")
def paint(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("paint")
    source, split = {"kind": "paint", "styles": ["ihc", "retina"]}, {"train": 0.55, "val": 0.15, "test": 0.3}
    config = DatasetConfig.model_validate({"source": source, "split": split})
    return Dataset(root / "paint", prepare(root, "paint", config, root / "paint", lambda *_: None), "0" * 32)


def experiment(optimizer: dict[str, Any] = ADAM, train: dict[str, Any] | None = None, **task: Any) -> ExperimentConfig:
    block = {"name": "style_transfer", **SMALL, **task}
    batch = 1 if task.get("method") == "optimize" else 4
    plain = {"epochs": 2, "batch_size": batch, "workers": 0, "checkpoint_seconds": 0, **(train or {})}
    return ExperimentConfig.model_validate({"task": block, "data": "paint", "optimizer": optimizer, "train": plain})


def make(config: ExperimentConfig, dataset: Dataset, folder: Path) -> tuple[Task, LocalContext]:
    folder.mkdir(exist_ok=True)
    context = LocalContext(folder, torch.device("cpu"), 1)
    torch.manual_seed(key(config.seed, "init"))
    return Task.build(config, dataset, context), context


def trained(config: ExperimentConfig, dataset: Dataset, folder: Path, stop_at: int | None = None) -> Outcome:
    task, context = make(config, dataset, folder)
    step, done = task.train_step, 0

    def stepped(batch: Any, engine: Any) -> Any:
        nonlocal done
        if done == stop_at:
            (folder / STOP).touch()
        done += 1
        return step(batch, engine)

    task.train_step = stepped  # type: ignore[method-assign]
    try:
        return train(task, {split: source(config.task, dataset, split) for split in ("train", "val")}, config, context)
    finally:
        context.close()


def test_gram_matrix_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels of 1 x 2
    expected = torch.tensor([[[5.0, 1.0], [1.0, 10.0]]]) / (2 * 1 * 2)
    torch.testing.assert_close(gram(features), expected)
    torch.testing.assert_close(gram(features.to(memory_format=torch.channels_last)), expected)


def test_total_variation_by_hand() -> None:
    picture = (
        torch.tensor([[[[0.0, 1.0], [0.0, 0.5]]]]).expand(2, 3, 2, 2) * torch.tensor([1.0, 2.0])[:, None, None, None]
    )
    one = (0 + 0.25) / 2 + (1 + 0.25) / 2  # down, across
    torch.testing.assert_close(total_variation(picture), torch.tensor([one, 4 * one]))


def test_each_picture_is_rolled_by_its_own_shift() -> None:
    pictures = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    moved = rolled(pictures, torch.tensor([[0, 0], [1, 0]]))
    assert torch.equal(moved[0], pictures[0])
    assert torch.equal(moved[1, :, 1:], pictures[1, :, :-1])


def test_losses_vanish_for_what_is_wanted(paint: Dataset, tmp_path: Path) -> None:
    task, _ = make(experiment(), paint, tmp_path)
    styles = torch.stack([fitted(Images.of(paint, "train", STYLE).pixels(n), 32) for n in range(2)]) / 255
    reference = task.perceptual.features(styles)
    own = task.perceptual.losses(styles, reference, torch.tensor([0, 1]))
    crossed = task.perceptual.losses(styles, reference, torch.tensor([1, 0]))
    assert own.style.abs().max() < 1e-6
    assert own.content.abs().max() < 1e-6
    assert crossed.style.min() > 0.01
    weights = task.config
    torch.testing.assert_close(
        crossed.total,
        weights.style_weight * crossed.style
        + weights.content_weight * crossed.content
        + weights.variation_weight * crossed.variation,
    )


def test_the_norm_is_instance_normalization_with_the_scale_of_each_style() -> None:
    norm = ConditionalNorm(4, 3)
    with torch.no_grad():
        norm.scale.copy_(torch.rand(3, 4))
        norm.offset.copy_(torch.rand(3, 4))
    maps, style = torch.randn(2, 4, 6, 5), torch.tensor([2, 0])
    plain = torch.nn.functional.instance_norm(maps)
    expected = plain * norm.scale[style][:, :, None, None] + norm.offset[style][:, :, None, None]
    torch.testing.assert_close(norm(maps, style), expected, rtol=1e-4, atol=1e-5)


def test_crops_follow_from_their_counters_alone(paint: Dataset) -> None:
    crops = Crops(experiment().task, paint)
    indices = np.arange(len(crops))
    together = crops.load(indices, Draw(0, 3, indices))
    for i in (0, 5, len(crops) - 1):
        alone = crops.load(indices[i : i + 1], Draw(0, 3, indices[i : i + 1]))
        assert all(torch.equal(alone[name][0], together[name][i]) for name in together)
    again = crops.load(indices, Draw(0, 4, indices))
    assert not torch.equal(again["content"], together["content"])
    assert set(together["style"].tolist()) == {0, 1}
    assert together["content"].shape == (len(crops), 3, 24, 24)
    assert len(crops) == 2 * len(Images.of(paint, "train", CONTENT))


def test_photographs_too_many_for_memory_give_the_same_crops(paint: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    indices = np.arange(4)
    held = Crops(experiment().task, paint)
    monkeypatch.setattr("assay.tasks.style_transfer.data.MEMORY", 0)
    read = Crops(experiment().task, paint)
    assert (held.in_memory, read.in_memory) == (True, False)
    draw = Draw(0, 0, indices)
    assert torch.equal(held.load(indices, draw)["content"], read.load(indices, draw)["content"])


@pytest.mark.parametrize(("height", "width"), [(10, 30), (31, 7), (16, 16)])
def test_pictures_are_fitted_around_their_middle(height: int, width: int) -> None:
    pixels = torch.arange(3 * height * width).reshape(3, height, width).to(torch.uint8)
    assert fitted(pixels, 16).shape == (3, 16, 16)
    assert min(resized(pixels, 16).shape[1:]) == 16
    if (height, width) == (16, 16):
        assert torch.equal(fitted(pixels, 16), pixels)


@pytest.mark.parametrize("start", ["content", "noise"])
@pytest.mark.parametrize("optimizer", [{"name": "adam", "lr": 0.05}, {"name": "lbfgs", "lr": 1.0}])
def test_optimization_nears_the_style(paint: Dataset, tmp_path: Path, start: str, optimizer: dict[str, Any]) -> None:
    config = experiment(optimizer, method="optimize", steps=5 if optimizer["name"] == "lbfgs" else 30, start=start)
    task, context = make(config, paint, tmp_path / "before")
    pairs = source(config.task, paint, "val")
    before, _ = evaluate(task, pairs, "val", 4, context)
    if start == "content":
        assert before["val/style_ratio"] == pytest.approx(1, abs=0.01)
        assert before["val/content_loss"] < 1e-3
    outcome = trained(config, paint, tmp_path / "run")
    assert outcome.metrics["val/total_loss"] < 0.6 * before["val/total_loss"]


def test_one_picture_of_a_chosen_pair(paint: Dataset, tmp_path: Path) -> None:
    contents = Images.of(paint, "test", CONTENT)
    config = experiment(method="optimize", content=contents.names[1], style="style/retina", steps=2)
    Task.check(config, paint)
    task, context = make(config, paint, tmp_path)
    test = source(config.task, paint, "test")
    batch = test.load(np.arange(1), None)
    assert len(test) == 1
    assert (task.styles, batch["style"].tolist()) == (["style/retina"], [0])
    assert torch.equal(batch["content"][0], fitted(contents.pixels(1), 32))
    _, (picture,) = evaluate(task, test, "test", 1, context)
    assert Image.open(io.BytesIO(picture.png)).width > 3 * 32
    with pytest.raises(InputError, match="method: network"):
        Serving.export(task)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop agrees on a stop at every step."""
    monkeypatch.setattr(pulse, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "sync", lambda path: None)


@pytest.mark.parametrize(
    ("optimizer", "method"),
    [({"name": "lbfgs", "lr": 1.0}, "optimize"), (ADAM, "optimize"), (ADAM, "network")],
)
@pytest.mark.usefixtures("often")
def test_stopped_and_resumed_ends_with_the_same_bits(
    paint: Dataset, tmp_path: Path, optimizer: dict[str, Any], method: str
) -> None:
    config = experiment(optimizer, method=method, steps=4)
    whole = trained(config, paint, tmp_path / "whole")
    first = trained(config, paint, tmp_path / "stopped", stop_at=1)
    assert not first.finished
    (tmp_path / "stopped" / STOP).unlink()
    second = trained(config, paint, tmp_path / "stopped")
    assert second.resumed_from == 2
    assert (second.weights_sha256, second.metrics) == (whole.weights_sha256, whole.metrics)


def test_a_network_learns(paint: Dataset, tmp_path: Path) -> None:
    config = experiment(train={"epochs": 25}, style_weight=20.0)
    task, context = make(config, paint, tmp_path / "before")
    before, pictures = evaluate(task, source(config.task, paint, "val"), "val", 4, context)
    assert [picture.name for picture in pictures] == ["triptychs"]
    outcome = trained(config, paint, tmp_path / "run")
    assert outcome.metrics["val/total_loss"] < 0.9 * before["val/total_loss"]


@pytest.fixture(scope="module")
def served() -> Served:
    torch.manual_seed(0)
    painter = Painter(Config(width=4, blocks=1), 3)
    for parameter in painter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return Served(painter, 3).eval()


def photograph(batch: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (batch, 3, height, width), dtype=np.uint8)


def test_the_exported_network_answers_alike_at_any_size(served: Served) -> None:
    auto = torch.export.Dim.AUTO
    example = (torch.from_numpy(photograph(2, 32, 32)),)
    program = torch.export.export(served, example, dynamic_shapes=({0: auto, 2: auto, 3: auto},)).module()
    for shape in ((1, 8, 8), (3, 33, 50), (2, 47, 18), (1, 64, 64)):
        pixels = torch.from_numpy(photograph(*shape))
        with torch.no_grad():
            expected = served(pixels)
            assert torch.equal(program(pixels), expected)
        assert expected.shape == (shape[0], 3, 3, *shape[1:])
        assert expected.dtype == torch.uint8
    assert not torch.equal(expected[:, 0], expected[:, 1]), "styles differ"


def test_pictures_owe_no_palette_to_the_photograph() -> None:
    """Brighter, flatter, tinted: nearly the same picture."""
    torch.manual_seed(0)
    painter = Painter(Config(width=4, blocks=1), 2)
    plain = torch.rand(1, 3, 21, 34)
    tinted = 0.8 * plain * torch.tensor([1.0, 0.8, 0.6])[:, None, None] + 0.2
    with torch.no_grad():
        torch.testing.assert_close(
            painter(tinted, torch.tensor([1])), painter(plain, torch.tensor([1])), atol=0.02, rtol=0
        )


@pytest.mark.parametrize("method", ["network", "optimize"])
def test_a_chosen_style_is_the_only_one(paint: Dataset, tmp_path: Path, method: str) -> None:
    config = experiment(method=method, style="style/retina")
    task, _ = make(config, paint, tmp_path)
    assert task.styles == ["style/retina"]
    assert len(task.perceptual.grams["conv1"]) == 1
    assert len(source(config.task, paint, "test")) == (2 if method == "network" else 1)
    if method == "network":
        assert source(config.task, paint, "train").load(np.arange(8), None)["style"].unique().tolist() == [0]


def test_what_is_served_is_what_was_judged(paint: Dataset, tmp_path: Path) -> None:
    task, _ = make(experiment(), paint, tmp_path)
    torch.nn.init.normal_(task.modules["painter"].leave.weight, std=0.1)
    batch = source(experiment().task, paint, "val").load(np.arange(2), None)
    with torch.no_grad():
        judged = task.painted(batch["content"], batch["style"]).mul(255).round().to(torch.uint8)
        answered = Serving.export(task).module(batch["content"][:1])
    difference = (answered[0].int() - judged.int()).abs()
    assert difference.max() <= 1  # a batch of two may round another way than one by one


def test_a_file_becomes_one_picture_a_style(served: Served, tmp_path: Path) -> None:
    Image.fromarray(photograph(1, 20, 31)[0].transpose(1, 2, 0)).save(tmp_path / "p.png")
    serving = Serving({"styles": ["style/a.png", "style/b.png", "style/c.png"]})
    inputs = serving.read(tmp_path / "p.png")
    with torch.no_grad():
        outputs = served(torch.from_numpy(inputs)).numpy()
    (answer,) = serving.describe(inputs, outputs)
    assert [picture.name for picture in answer.pictures] == ["a", "b", "c"]
    shown = np.asarray(Image.open(io.BytesIO(answer.pictures[1].png)))
    assert np.array_equal(shown, outputs[0, 1].transpose(1, 2, 0))
    assert answer.values["width"] == 31


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"", "not an image"), (b"text", "not an image"), (None, "No such file"), (b"small", "at least 8")],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes | None, line: str) -> None:
    path = tmp_path / "x.png"
    if content == b"small":
        Image.new("RGB", (7, 20)).save(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=line) as caught:
        Serving({}).read(path)
    assert str(path) in str(caught.value)


def test_styles_of_one_name_keep_apart() -> None:
    assert names(["a/x.png", "b/x.jpg", "y"]) == ["x-0", "x-1", "y"]


LBFGS = {"name": "lbfgs", "lr": 1.0}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"optimizer": LBFGS}, "optimizer.name: lbfgs"),
    ({"optimizer": LBFGS, "method": "optimize", "train": {"precision": "bf16"}}, "train.precision: bf16"),
    ({"optimizer": LBFGS, "method": "optimize", "train": {"accumulate": 2}}, "train.accumulate: 2"),
    ({"optimizer": LBFGS, "method": "optimize", "train": {"clip": 1.0}}, "train.clip"),
    ({"method": "optimize", "train": {"workers": 2, "batch_size": 2}}, "train.workers: 2"),
    ({"method": "optimize", "train": {"batch_size": 4}}, "train.batch_size: 4"),
    ({"crops_per_image": 1, "train": {"workers": 1000, "batch_size": 1000}}, "raise task.crops_per_image"),
    ({"method": "optimize", "style": "style/ihk"}, "did you mean 'style/ihc'"),
    ({"method": "optimize", "content": "content/chelsee"}, "did you mean 'content/chelsea'"),
    ({"perceptual": {**PERCEPTUAL, "style_layers": ["layer9"]}}, "task.perceptual: unknown layer.*'layer9'.*layer1"),
    ({"perceptual": {**PERCEPTUAL, "style_layers": ["fc"]}}, "the layer fc returns no map"),
    ({"perceptual": {**PERCEPTUAL, "style_layers": ["layer4"]}}, "task.image_size: 32 leaves layer4 a single position"),
    ({"perceptual": {**PERCEPTUAL, "architecture": "torchvision:resnet19"}}, "resnet18"),
]


@pytest.mark.parametrize(("changes", "line"), WRONG)
def test_what_cannot_work_is_refused_in_one_line(paint: Dataset, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        Task.check(experiment(**changes), paint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ({"content": "chelsea"}, "content: method network paints every photograph"),
        ({"crop_size": 64}, "crop_size: 64 is larger"),
        ({"style_weight": 0, "content_weight": 0}, "nothing would be learnt"),
    ],
)
def test_settings_that_contradict_each_other(task: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        experiment(**task)


def changed(dataset: Dataset, **card: Any) -> Dataset:
    return Dataset(dataset.folder, dataset.card.model_copy(update=card), dataset.hash)


def test_other_data_are_refused(paint: Dataset) -> None:
    counts = paint.card.counts
    without = {**counts, "train": {**counts["train"], "style": 0}}
    with pytest.raises(InputError, match="annotated with boxes"):
        Task.check(experiment(), changed(paint, annotation="boxes"))
    with pytest.raises(InputError, match="no style image"):
        Task.check(experiment(), changed(paint, counts=without))


def test_a_picture_of_one_colour_is_named(paint: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    Task.check(experiment(), paint)
    plain: Callable[[Images, int], Tensor] = Images.pixels

    def flat(images: Images, number: int) -> Tensor:
        pixels = plain(images, number)
        return torch.full_like(pixels, 9) if images.names[number] == "content/coffee" else pixels

    monkeypatch.setattr(Images, "pixels", flat)
    with pytest.raises(InputError, match="content/coffee: has only one colour"):
        Task.check(experiment(), paint)


def test_a_first_experiment_for_such_data(paint: Dataset) -> None:
    starter = Config.starter(paint.card)
    assert starter is not None
    Task.check(ExperimentConfig.model_validate({**starter, "data": "paint"}), paint)
    assert Config.starter(paint.card.model_copy(update={"annotation": "class"})) is None
    assert math.isfinite(Config().style_weight)
