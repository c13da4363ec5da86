"""The networks of every experiment: what they cost, what measuring changes (nothing), and their spaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.config.experiment import ExperimentConfig
from assay.config.plugin import load_serving
from assay.config.search import SearchConfig
from assay.data.dataset import Dataset, prepare
from assay.errors import InputError
from assay.networks.costs import task_costs
from assay.task import Serving, Task
from assay.train.context import LocalContext
from assay.train.engine import StepEngine
from assay.train.loader import Loader
from assay.tune.space import Space, bound
from tests.support.families import EXPERIMENTS, PARAMS, REPOSITORY, build, sources

SEARCHED = ["digits", "digit_scenes", "digits_gan"]
SCENES = {"source": {"kind": "digit_scenes", "scenes": 40, "size": 64}}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    root = tmp_path_factory.mktemp("datasets")
    small = type(PARAMS.dataset("digits")).model_validate(SCENES)
    found = {}
    for name, config in {"digits": PARAMS.dataset("digits"), "digit_scenes": small}.items():
        card = prepare(REPOSITORY, name, config, root / name, lambda *_: None)
        found[name] = Dataset(root / name, card, "0" * 32)
    return found


def here() -> LocalContext:
    return LocalContext(Path("unused"), torch.device("cpu"), 1)


def serving(name: str) -> type[Serving[Any]]:
    return load_serving(EXPERIMENTS[name].task.name)


def searched(name: str, **search: Any) -> tuple[Space, ExperimentConfig]:
    config = {"experiment": name, "networks": True, "budget": {"trials": 1}, **search}
    return bound("best", SearchConfig.model_validate(config), EXPERIMENTS[name])


def steps(task: Task, config: ExperimentConfig, dataset: Dataset) -> list[dict[str, float]]:
    """What two training steps report."""
    source = sources(config, dataset)["train"]
    loader = Loader(source, 8, 0, 0, 1).epoch(0, 0)
    engine, found = StepEngine(task.optimizers, config.train, config.optimizer, torch.device("cpu"), 2), []
    task.train(True)
    for step in range(2):
        engine.begin(step)
        found.append({key: value.item() for key, value in task.train_step(next(loader), engine).items()})
        engine.end()
    return found


@pytest.mark.parametrize("name", SEARCHED)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_network_of_a_space_can_be_trained_and_served(name: str, datasets: dict[str, Dataset], seed: int) -> None:
    space, fixed = searched(name, set={"task.image_size": 64} if name == "digit_scenes" else {})
    config = space.apply(fixed, space.sample(np.random.default_rng(seed)))
    task = build(config, datasets[config.data], here())
    found = task_costs(task, serving(name))
    assert min(found.parameters, found.macs, found.latency_ms) > 0
    assert found.receptive_field > 1 or serving(name).export(task).example.ndim == 2
    assert all(np.isfinite(list(step.values())).all() for step in steps(task, config, datasets[config.data]))
    task.train(False)
    export = serving(name).export(task)
    with torch.no_grad():
        answers = export.module(torch.from_numpy(export.example)).double()
    assert len(answers) == len(export.example)
    assert answers.isfinite().all()


@pytest.mark.parametrize(
    ("name", "normalization"), [("digits", "batch"), ("digits", "group"), ("digit_scenes", "batch")]
)
def test_a_shape_is_served_as_it_was_trained(name: str, normalization: str, datasets: dict[str, Dataset]) -> None:
    kinds = ({"block": "plain"}, {"block": "residual", "bottleneck": True}, {"block": "inception"})
    stages = [{"depth": 1, "width": 16, **kind} for kind in kinds]
    network = {"stages": stages, "normalization": normalization, "separable": normalization == "group"}
    chosen = {"architecture": "convnet", "weights": "none", "network": network}
    data = EXPERIMENTS[name].model_dump(mode="json")
    config = ExperimentConfig.model_validate({**data, "task": {**data["task"], **chosen}})
    task = build(config, datasets[config.data], here())
    steps(task, config, datasets[config.data])
    export = serving(name).export(task)
    example, several = (torch.from_numpy(np.repeat(export.example, count, 0)) for count in (1, 2))
    shapes = (dict.fromkeys(export.dynamic, torch.export.Dim.AUTO),)
    served = torch.export.export(export.module, (example,), dynamic_shapes=shapes).module()
    with torch.no_grad():
        torch.testing.assert_close(served(several), export.module(several), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SEARCHED)
def test_measuring_changes_nothing(name: str, datasets: dict[str, Dataset]) -> None:
    config = EXPERIMENTS[name].model_copy(update={"train": EXPERIMENTS[name].train.model_copy(update={"workers": 0})})
    dataset = datasets[config.data]
    plain, measured = (build(config, dataset, here()) for _ in range(2))
    for module in measured.modules.values():
        module.train()
    modes = [part.training for module in measured.modules.values() for part in module.modules()]
    before = torch.get_rng_state()
    served = serving(name).export(measured).module
    assert task_costs(measured, serving(name)).parameters == sum(p.numel() for p in served.parameters())
    for module in measured.modules.values():
        module.train()
    task_costs(measured, serving(name))
    assert torch.equal(torch.get_rng_state(), before)
    assert [part.training for module in measured.modules.values() for part in module.modules()] == modes
    found = []
    for task in (plain, measured):
        torch.manual_seed(1)
        found.append((steps(task, config, dataset), task.state_dict()))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(tensor, found[1][1][key]) for key, tensor in found[0][1].items())


def test_a_condition_of_the_space_follows_the_stage() -> None:
    space, _ = searched("digits")
    for seed in range(40):
        point = space.sample(np.random.default_rng(seed))
        for stage in range(4):
            key = f"task.network.stages.{stage}"
            assert (point[f"{key}.depth"] > 0) == (f"{key}.width" in point)


def test_a_detector_with_pretrained_weights_keeps_its_backbone() -> None:
    space, fixed = searched("digit_scenes")
    points = [space.sample(np.random.default_rng(seed)) for seed in range(20)]
    tasks = [space.apply(fixed, point).task.model_dump() for point in points]
    assert {(task["weights"], task["architecture"]) for task in tasks} == {
        ("imagenet", "timm:tf_efficientnet_lite0"),
        ("none", "convnet"),
    }
    assert all(("task.network.stem" in point) == (point["task.weights"] == "none") for point in points)


def test_both_networks_of_a_gan_have_sizes_of_their_own(datasets: dict[str, Dataset]) -> None:
    def sizes(**task: Any) -> dict[str, int]:
        data = {"task": {"name": "gan", "image_size": 8, "width": 8, **task}, "data": "digits"}
        built = build(ExperimentConfig.model_validate(data), datasets["digits"], here())
        return {name: sum(p.numel() for p in module.parameters()) for name, module in built.modules.items()}

    base, same = sizes(), sizes(discriminator_width=8, discriminator_depth=2)
    assert same == base
    wide, deep = sizes(discriminator_width=16), sizes(discriminator_depth=3)
    for other in (wide, deep):
        assert other["generator"] == base["generator"]
        assert other["discriminator"] > 1.3 * base["discriminator"]


def test_a_network_without_weights_to_load_is_refused_with_weights() -> None:
    data = {"task": {"name": "detection", "architecture": "convnet"}, "data": "digit_scenes"}
    with pytest.raises(ValueError, match="convnet has no pretrained weights: set weights: none"):
        ExperimentConfig.model_validate(data)


def test_a_task_without_networks_has_no_space() -> None:
    with pytest.raises(InputError, match="has no networks to search"):
        searched("paint")
