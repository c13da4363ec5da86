"""The task `gan` as a whole: its steps, its classes, its measures, what it refuses, and what it exports."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assay.config.dataset import DatasetConfig
from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset, prepare
from assay.errors import InputError
from assay.tasks.gan.config import Config
from assay.tasks.gan.data import Images, latents
from assay.tasks.gan.serving import Serving
from assay.tasks.gan.task import Task, source
from assay.train.context import LocalContext
from assay.train.engine import StepEngine
from assay.train.loop import evaluate, train
from assay.train.randomness import Draw
from tests.support.ranks import Group, ThreadContext

CPU = torch.device("cpu")
SERVING = Serving({"classes": ["0", "1", "2"], "latent": 4})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The digits of scikit-learn."""
    root = tmp_path_factory.mktemp("gan")
    config = DatasetConfig.model_validate({"source": {"kind": "digits"}})
    return Dataset(root / "digits", prepare(root, "digits", config, root / "digits", lambda *_: None), "abc.dir")


def experiment(task: dict[str, Any] | None = None, **parts: Any) -> ExperimentConfig:
    small = {"name": "gan", "image_size": 8, "width": 4, "latent": 4, "features": "pixels", **(task or {})}
    optimizer = {"name": "adam", "lr": 1e-3, "betas": [0.0, 0.99], **parts.pop("optimizer", {})}
    train = {"batch_size": 16, "epochs": 1, "workers": 0, **parts.pop("train", {})}
    return ExperimentConfig.model_validate({"task": small, "data": "digits", "optimizer": optimizer, "train": train})


def built(dataset: Dataset, config: ExperimentConfig, context: LocalContext | None = None) -> Task:
    torch.manual_seed(0)
    return Task.build(config, dataset, context or LocalContext(Path("unused"), CPU, 1))


def stepped(task: Task, config: ExperimentConfig, batches: list[Any]) -> list[dict[str, float]]:
    engine = StepEngine(task.optimizers, config.train, config.optimizer, CPU, len(batches))
    task.train(True)
    found = []
    for number, batch in enumerate(batches):
        engine.begin(number)
        found.append({name: value.item() for name, value in task.train_step(batch, engine).items()})
        engine.end()
    return found


def batches(dataset: Dataset, config: ExperimentConfig, count: int, rank: int = 0, of: int = 1) -> list[Any]:
    images = source(config.task, dataset, "train")  # type: ignore[arg-type]
    shards = [np.arange(16 * i, 16 * i + 16)[rank::of] for i in range(count)]
    return [images.load(shard, Draw(0, 0, shard)) for shard in shards]


# Data


def test_every_random_number_comes_with_the_batch_and_by_the_sample(dataset: Dataset) -> None:
    images = Images(Config(image_size=8, repeats=3), dataset, "train")
    count = dataset.card.samples["train"]
    assert len(images) == 3 * count
    indices = np.array([5, 5 + count, 9])
    batch = images.load(indices, Draw(1, 0, indices))
    assert torch.equal(batch["image"][0], batch["image"][1])
    assert not torch.equal(batch["latent"][0], batch["latent"][1])
    assert not torch.equal(batch["latent"], batch["second"])
    assert batch["augment"].shape == (3, 2, 7)
    alone = images.load(indices[2:], Draw(1, 0, indices[2:]))
    assert all(torch.equal(alone[name][0], batch[name][2]) for name in batch)
    assert batch["image"].min() == -1
    assert batch["image"].max() == 1


def test_latents_of_an_evaluation_are_fixed_by_index(dataset: Dataset) -> None:
    images = Images(Config(image_size=8), dataset, "val")
    one, other = images.load(np.array([3, 4]), None), images.load(np.array([4]), None)
    assert one.keys() == {"image", "label", "latent"}
    assert torch.equal(one["latent"][1], other["latent"][0])


# Steps


@pytest.mark.parametrize("loss", ["r3gan", "dcgan"])
@pytest.mark.parametrize("conditional", [True, False])
def test_both_networks_learn_and_the_average_follows(dataset: Dataset, loss: str, conditional: bool) -> None:
    config = experiment({"loss": loss, "conditional": conditional, "ema": 0.5, "ema_warmup": 0})
    task = built(dataset, config)
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    losses = stepped(task, config, batches(dataset, config, 1))[0]
    expected = {"discriminator_loss", "generator_loss"} | ({"r1", "r2"} if loss == "r3gan" else set())
    assert losses.keys() == expected
    for part in ("generator", "discriminator"):
        parameters = dict(getattr(task, part).named_parameters())
        moved = [name for name, value in parameters.items() if not torch.equal(value, before[f"{part}/{name}"])]
        assert moved
    for name, value in task.generator.named_parameters():
        middle = (before[f"generator/{name}"] + value) / 2
        torch.testing.assert_close(task.average.get_parameter(name), middle)
    assert all(p.requires_grad for p in task.discriminator.parameters())


def test_the_average_keeps_up_at_first_and_lags_later(dataset: Dataset) -> None:
    config = experiment({"ema": 0.9, "ema_warmup": 0.5})
    task = built(dataset, config)
    with torch.no_grad():
        for parameter in task.generator.parameters():
            parameter.add_(1)
    name, target = next(iter(task.generator.named_parameters()))
    lags = []
    for progress in (0.0, 0.25, 0.75):
        kept = task.average.get_parameter(name).copy_(target - 1)
        task._follow(progress)
        lags.append((target - kept).mean().item())
    assert lags == pytest.approx([0, 0.45, 0.9], abs=1e-5)


def test_penalties_cost_what_they_weigh(dataset: Dataset) -> None:
    """Without weights, none is computed; with more, the discriminator becomes flatter."""
    slopes = {}
    for weight in (1e-6, 30.0):
        config = experiment({"penalty": weight, "penalty_end": 1})
        slopes[weight] = stepped(built(dataset, config), config, batches(dataset, config, 20))[-1]["r1"]
    assert slopes[30.0] < slopes[1e-6] / 2
    config = experiment({"penalty": 0})
    assert "r1" not in stepped(built(dataset, config), config, batches(dataset, config, 1))[0]


def test_a_generator_learns_its_classes(dataset: Dataset) -> None:
    """Class numbers reach both networks: another class makes another image, and another score."""
    config = experiment()
    task = built(dataset, config)
    stepped(task, config, batches(dataset, config, 5))
    latent = latents(0, np.zeros(2, dtype=np.int64), 4)
    one, other = task.average(task.inputs(latent, torch.tensor([1, 7])))
    assert not torch.equal(one, other)
    image = one.detach()[None].repeat(2, 1, 1, 1)
    first, second = task.discriminator(image, torch.tensor([1, 7]))
    assert first != second


@pytest.mark.parametrize("loss", ["r3gan", "dcgan"])
def test_two_workers_learn_what_one_does(dataset: Dataset, loss: str, tmp_path: Path) -> None:
    """In bare form; DCGAN's batch normalization, which threads do not share, is measured on one batch twice over."""
    config = experiment({"loss": loss})
    steps = 4

    group = Group(2)
    tasks = [built(dataset, config, ThreadContext(tmp_path, group, rank)) for rank in range(2)]

    def body(rank: int) -> list[dict[str, float]]:
        shards = batches(dataset, config, steps) if loss == "dcgan" else batches(dataset, config, steps, rank, 2)
        return stepped(tasks[rank], config, shards)

    both = group.run(body)
    alone = stepped(built(dataset, config), config, batches(dataset, config, steps))
    for step, expected in enumerate(alone):
        for name, value in expected.items():
            mean = (both[0][step][name] + both[1][step][name]) / 2
            assert mean == pytest.approx(value, rel=1e-5, abs=1e-5), (step, name)


def test_killed_and_resumed_is_the_same_to_the_bit(dataset: Dataset, tmp_path: Path) -> None:
    config = experiment(train={"epochs": 2, "batch_size": 400, "checkpoint_seconds": 0})

    def attempt(folder: Path, stop_at: int | None = None) -> Any:
        folder.mkdir(exist_ok=True)
        context = LocalContext(folder, CPU, 1)
        task = built(dataset, config, context)
        splits = {name: source(config.task, dataset, name) for name in ("train", "val")}  # type: ignore[arg-type]
        step, done = task.train_step, 0

        def counted(batch: Any, engine: Any) -> Any:
            nonlocal done
            done += 1
            if done == stop_at:
                context.stop_requested = lambda: True  # type: ignore[method-assign]
            return step(batch, engine)

        task.train_step = counted  # type: ignore[method-assign]
        outcome = train(task, splits, config, context)
        context.close()
        return outcome

    whole = attempt(tmp_path / "whole")
    first = attempt(tmp_path / "killed", stop_at=2)
    assert not first.finished
    second = attempt(tmp_path / "killed")
    assert second.resumed_from == first.steps
    assert (second.weights_sha256, second.metrics) == (whole.weights_sha256, whole.metrics)


# Evaluation


class Perfect(torch.nn.Module):
    """A generator that gives back what it is told to."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images = images

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.images[: len(inputs)]


def measured(dataset: Dataset, tmp_path: Path, images: torch.Tensor) -> dict[str, float]:
    task = built(dataset, experiment(), LocalContext(tmp_path, CPU, 1))
    task.average = Perfect(images)  # type: ignore[assignment]
    return evaluate(task, source(task.config, dataset, "val"), "val", 1000, task.context)[0]  # type: ignore[arg-type]


def test_the_real_images_themselves_are_beyond_reproach(dataset: Dataset, tmp_path: Path) -> None:
    real = source(Config(image_size=8), dataset, "val")
    metrics = measured(dataset, tmp_path, real.load(np.arange(len(real)), None)["image"])
    assert metrics["val/frechet_pixels"] == pytest.approx(0, abs=1e-6)
    shares = ("precision", "recall", "coverage", "classes_present", "diversity")
    assert [metrics[f"val/{name}"] for name in shares] == pytest.approx([1] * 5)
    assert metrics["val/class_accuracy"] == metrics["val/judge_accuracy"] > 0.95
    assert metrics["val/collapsed"] == 0


def test_one_image_for_all_is_a_collapse_and_said_once(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(LocalContext, "warn", lambda self, line: lines.append(line))
    task = built(dataset, experiment(), LocalContext(tmp_path, CPU, 1))
    real = source(task.config, dataset, "val")
    task.average = Perfect(real.load(np.array([0]), None)["image"].expand(len(real), -1, -1, -1))  # type: ignore[assignment]
    for _ in range(2):
        metrics = evaluate(task, real, "val", 1000, task.context)[0]  # type: ignore[arg-type]
    assert metrics["val/collapsed"] == 1
    assert metrics["val/classes_present"] == pytest.approx(0.1)
    assert metrics["val/class_accuracy"] < 0.2
    assert len(lines) == 1
    assert "collapsed" in lines[0]


@pytest.mark.parametrize("conditional", [True, False])
def test_sheets_show_classes_and_do_not_change(dataset: Dataset, tmp_path: Path, conditional: bool) -> None:
    task = built(dataset, experiment({"conditional": conditional}), LocalContext(tmp_path, CPU, 1))
    images = source(task.config, dataset, "val")
    first, again = (list(task.pictures({}, images)) for _ in range(2))
    assert [picture.name for picture in first] == ["samples", "interpolation"]
    assert [picture.png for picture in first] == [picture.png for picture in again]
    rows = 10 if conditional else 8
    assert Image.open(io.BytesIO(first[0].png)).height == rows * 34 + 2
    assert len(first[0].table) == (10 if conditional else 0)


# Refusals


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"train": {"batch_size": 2}}, "train.batch_size 2"),
        ({"train": {"compile": True}}, "train.compile"),
        ({"train": {"precision": "fp16"}}, "train.precision fp16"),
        ({"optimizer": {"name": "lbfgs"}}, "optimizer.name lbfgs"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(dataset: Dataset, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        Task.check(experiment(**parts), dataset)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_what_only_penalties_forbid_is_allowed_without_them(dataset: Dataset) -> None:
    Task.check(experiment({"loss": "dcgan"}, train={"compile": True}), dataset)
    Task.check(experiment({"penalty": 0}, train={"precision": "fp16"}), dataset)


def test_classes_must_be_there_to_be_asked_for(dataset: Dataset) -> None:
    counts = {**dataset.card.counts, "train": {**dataset.card.counts["train"], "7": 0}}
    lacking = Dataset(dataset.folder, dataset.card.model_copy(update={"counts": counts}), "x")
    boxes = Dataset(dataset.folder, dataset.card.model_copy(update={"annotation": "boxes"}), "x")
    with pytest.raises(InputError, match="'7'"):
        Task.check(experiment(), lacking)
    with pytest.raises(InputError, match="task.conditional"):
        Task.check(experiment(), boxes)
    for found in (lacking, boxes):
        Task.check(experiment({"conditional": False}), found)


def test_the_headline_follows_from_the_features(dataset: Dataset) -> None:
    assert Config(features="pixels").headline.metric == "frechet_pixels"
    assert Config().headline.metric == "frechet_lite0"
    assert not Config().headline.maximize
    assert Config.starter(dataset.card) is None, "labelled images are offered a classification first"


# Serving


@pytest.mark.parametrize("loss", ["r3gan", "dcgan"])
def test_what_is_exported_makes_bytes_of_any_number_of_latents(dataset: Dataset, loss: str) -> None:
    task = built(dataset, experiment({"loss": loss}))
    export = Serving.export(task)
    program = torch.export.export(
        export.module, (torch.from_numpy(export.example),), dynamic_shapes=({0: torch.export.Dim.AUTO},)
    )
    inputs = Serving(export.metadata).sample(5, 1)
    with torch.no_grad():
        made = program.module()(torch.from_numpy(inputs))
        expected = export.module(torch.from_numpy(inputs))
    assert made.dtype == torch.uint8
    assert made.shape == (5, 1, 8, 8)
    assert (made.int() - expected.int()).abs().max() <= 1
    answers = Serving(export.metadata).describe(inputs, made.numpy())
    assert [answer.values["class"] for answer in answers] == ["0", "1", "2", "3", "4"]
    shown = np.asarray(Image.open(io.BytesIO(answers[2].pictures[0].png)))
    assert np.array_equal(shown, made[2, 0].numpy())


def test_samples_follow_the_seed_and_take_the_classes_in_turn() -> None:
    one, other = SERVING.sample(4, 7), SERVING.sample(4, 8)
    assert one.dtype == np.float32
    assert one[:, 4:].argmax(1).tolist() == [0, 1, 2, 0]
    assert np.array_equal(one, SERVING.sample(4, 7))
    assert not np.array_equal(one[:, :4], other[:, :4])
    assert Serving({"classes": [], "latent": 4}).sample(2, 0).shape == (2, 4)


@given(st.integers(0, 2**31 - 1), st.sampled_from(SERVING.metadata["classes"]))
def test_requests_say_class_and_seed(tmp_path_factory: pytest.TempPathFactory, seed: int, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / "request.json"
    path.write_text(json.dumps({"class": name, "seed": seed}))
    read = SERVING.read(path)
    assert read.shape == (1, 7)
    assert read[0, 4:].argmax() == int(name)
    assert np.array_equal(read[:, :4], latents(seed, np.array([0]), 4).numpy())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "one JSON object"),
        ('{"class": "9"}', "unknown class '9'"),
        ("{}", "unknown class"),
        ('{"class": "1", "seed": -1}', "seed must be"),
        ('{"class": "1", "seed": "x"}', "seed must be"),
        ('{"clas": "1"}', "did you mean 'class'"),
    ],
)
def test_bad_requests_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "request.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        SERVING.read(path)
    assert "request.json" in str(caught.value)
    with pytest.raises(InputError, match="missing.json"):
        SERVING.read(tmp_path / "missing.json")
