"""What is frozen does not move, what thaws follows from the progress, and deeper stages learn more slowly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.config.dataset import DatasetConfig
from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset, prepare
from assay.errors import InputError
from assay.networks.catalog import classifier
from assay.tasks.classification.config import Config, TransferConfig
from assay.tasks.classification.model import make_network
from assay.tasks.classification.task import Task, source
from assay.tasks.classification.transfer import Thaw, stages
from assay.train.context import LocalContext
from assay.train.engine import StepEngine
from assay.train.loader import Loader

CPU = torch.device("cpu")
LITE = "timm:tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("faces")
    config = DatasetConfig.model_validate({"source": {"kind": "faces"}})
    return Dataset(root / "faces", prepare(root, "faces", config, root / "faces", lambda *_: None), "abc.dir")


def experiment(**task: Any) -> ExperimentConfig:
    block = {"name": "classification", "architecture": LITE, "weights": "imagenet", "image_size": 32, **task}
    return ExperimentConfig.model_validate({"task": block, "data": "faces", "train": {"batch_size": 8}})


def built(config: ExperimentConfig, dataset: Dataset) -> Task:
    torch.manual_seed(0)
    return Task.build(config, dataset, LocalContext(Path("unused"), CPU, 1))


def steps(task: Task, config: ExperimentConfig, dataset: Dataset, count: int) -> Iterator[dict[str, Tensor]]:
    """The state after each of `count` steps of a training of that many."""
    engine = StepEngine(task.optimizers, config.train, config.optimizer, CPU, count)
    batches = Loader(source(config.task, dataset, "train"), 8, 0, 0, 1).epoch(0)  # type: ignore[arg-type]
    task.train(True)
    for step in range(count):
        engine.begin(step)
        task.train_step(next(batches), engine)
        engine.end()
        yield {name: tensor.clone() for name, tensor in task.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_frozen_means_every_weight_and_every_statistic(faces: Dataset) -> None:
    config = experiment(transfer={"freeze": True})
    task = built(config, faces)
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    *_, after = steps(task, config, faces, 3)
    assert changed(before, after) == {f"model/network.body.classifier.1.{part}" for part in ("weight", "bias")}
    assert task.notes["trainable_parameters"] == str(1280 * 2 + 2)
    assert "package" in task.notes["weights"]


def test_the_next_stage_thaws_when_it_is_due(faces: Dataset) -> None:
    config = experiment(transfer={"freeze": True, "unfreeze": [0.25, 0.75]})
    task = built(config, faces)
    states = [{name: tensor.clone() for name, tensor in task.state_dict().items()}, *steps(task, config, faces, 4)]
    moved = [changed(one, other) for one, other in zip(states, states[1:], strict=False)]
    touched = [{name.split("body.")[1].rpartition(".")[0] for name in names} for names in moved]
    assert touched[0] == {"classifier.1"}
    assert touched[1] == touched[2] == {"classifier.1", "conv_head", "bn2"}
    assert any(name.startswith("blocks.6") for name in touched[3])
    assert not any(name.startswith(("blocks.5", "conv_stem")) for name in touched[3])
    assert int(task.notes["trainable_parameters"]) == sum(p.numel() for p in task.model.parameters() if p.requires_grad)


def test_progress_alone_says_what_is_thawed() -> None:
    network, _ = make_network(Config(architecture="timm:resnet10t", image_size=32), 3, 2, True)
    thaw = Thaw(network, TransferConfig(freeze=True, unfreeze=(0.2, 0.4)))
    assert thaw.follow(0.5)  # a resume, say
    assert thaw.learning == 3
    assert not thaw.follow(0.9)
    assert not Thaw(network, TransferConfig()).follow(0.9)


@pytest.mark.parametrize(
    "architecture",
    [LITE, "torchvision:resnet18", "torchvision:alexnet", "torchvision:squeezenet1_1", "timm:convnext_atto"],
)
def test_stages_hold_each_parameter_once_and_begin_with_the_head(architecture: str) -> None:
    network, _ = classifier(architecture, channels=3, classes=3, weights="none", image_size=64, dropout=0.1)
    found = [[p for module in stage for p in module.parameters()] for stage in stages(network)]
    counted = [id(p) for stage in found for p in stage]
    assert len(counted) == len(set(counted))
    assert set(counted) == {id(p) for p in network.parameters()}
    assert {p.shape[0] for p in found[0]} == {3}
    first = next(network.parameters())
    assert any(p is first for p in found[-1])
    assert len(found) > 5


@pytest.mark.parametrize("architecture", ["small_cnn", "convnet", "timm:resnet10t", "timm:vit_tiny_patch16_224"])
def test_deeper_stages_learn_more_slowly(architecture: str) -> None:
    network, _ = make_network(Config(architecture=architecture, image_size=32), 3, 2, True)
    groups = Thaw(network, TransferConfig(decay=0.5)).groups(0.8)
    assert [group["lr"] for group in groups[:3]] == [0.8, 0.4, 0.2]
    counted = [id(p) for group in groups for p in group["params"]]
    assert sorted(counted) == sorted(id(p) for p in network.parameters())
    (whole,) = Thaw(network, TransferConfig()).groups(0.8)
    assert len(whole["params"]) == len(counted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"unfreeze": [0.5]}, "freeze: true"), ({"freeze": True, "unfreeze": [0.5, 0.2]}, "rise")],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransferConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"architecture": "timm:tf_efficientnet_lite9"}, "task.architecture.*tf_efficientnet_lite0|lite4"),
        ({"architecture": "torchvision:alexnet", "weights": "none"}, "task.image_size: 32 is too small"),
        ({"weights": "gone.pth"}, "task.weights: gone.pth: no such file"),
        ({"multi_label": True}, "one class.*multi_label: false"),
    ],
)
def test_what_cannot_work_is_refused_before_the_start(faces: Dataset, task: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Task.check(experiment(**task), faces)


def test_batches_of_one_and_optimizers_of_the_whole_are_refused(faces: Dataset) -> None:
    config = experiment()
    for section, update in (("train", {"batch_size": 1}), ("optimizer", {"name": "lbfgs"})):
        part = getattr(config, section).model_copy(update=update)
        with pytest.raises(InputError, match=f"{section}.{next(iter(update))}"):
            Task.check(config.model_copy(update={section: part}), faces)
    Task.check(config, faces)


def test_weights_that_do_not_fit_are_named(faces: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"conv_stem.weight": torch.zeros(8, 3, 3, 3)}, path)
    with pytest.raises(InputError, match=r"conv_stem.weight \[8, 3, 3, 3\] for \[32, 3, 3, 3\]"):
        Task.check(experiment(weights=str(path)), faces)
