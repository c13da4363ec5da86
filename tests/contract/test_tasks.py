"""What every task must keep, found by walking the folders: a new task or experiment is tested without an edit here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.config.experiment import ExperimentConfig
from assay.config.plugin import load_config, load_serving, load_task, task_names
from assay.errors import WorkError
from assay.task import Task
from assay.train import checkpoint, pulse
from assay.train.checkpoint import weights_sha256
from assay.train.context import LocalContext
from assay.train.folder import STOP
from assay.train.loop import Outcome, evaluate, train
from assay.train.prepare import be_deterministic
from assay.usecases.helpers.proof import agree
from tests.support.families import EXPERIMENTS, REPOSITORY, build, opened, small, sources

OF_SOME_DATA = ("top5", "map_small", "map_medium", "map_large")
"""Metrics that a split reports or not, by its classes and boxes: no search may count on them."""


@pytest.fixture(autouse=True, scope="module")
def _agree_at_every_step() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pulse, "SECONDS", 0.0)
        patch.setattr(checkpoint, "sync", lambda path: None)  # no power is cut here
        yield


def here(folder: Path) -> LocalContext:
    return LocalContext(folder, torch.device("cpu"), 1)


@pytest.mark.parametrize("name", task_names())
def test_config_stands_alone(name: str) -> None:
    assert load_config(name)(name=name).name == name
    code = (
        "import sys; from assay.config.plugin import load_config\n"
        f"load_config({name!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, "reading a config imports torch"


@pytest.mark.parametrize("name", task_names())
def test_serving_leaves_training_alone(name: str) -> None:
    code = (
        "import sys; from assay.config.plugin import load_serving\n"
        f"load_serving({name!r})({{}})\n"
        f"sys.exit(not {{'torch', 'assay.tasks.{name}.task', 'assay.train.loop'}}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, "answering imports what trains"


@pytest.mark.parametrize("name", task_names())
def test_task_is_documented(name: str) -> None:
    text = (REPOSITORY / "platform/assay/tasks" / name / "README.md").read_text()
    for heading in ("## What it learns", "## The command", "## What to expect"):
        assert heading in text


def test_no_task_is_known_by_name_elsewhere() -> None:
    for path in (REPOSITORY / "platform/assay").rglob("*.py"):
        if "tasks" not in path.parts:
            text = path.read_text()
            assert not any(f'== "{name}"' in text for name in task_names()), path


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_evaluates_and_exports(name: str, datasets: Path, tmp_path: Path) -> None:
    config, context = small(name), here(tmp_path)
    dataset = opened(config, datasets)
    load_task(config.task.name)[0].check(EXPERIMENTS[name], dataset)
    task = build(config, dataset, context)
    metrics, pictures = evaluate(task, sources(config, dataset, 16)["val"], "val", 8, context)
    assert f"val/{config.task.headline.metric}" in metrics
    declared = [f"val/{metric}" for metric in config.task.metrics]
    assert len(set(declared)) == len(declared)
    assert set(declared) == set(metrics) - {f"val/{metric}" for metric in OF_SOME_DATA}
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(picture.png.startswith(b"\x89PNG") for picture in pictures)
    assert len({picture.name for picture in pictures}) == len(pictures)

    serving = load_serving(config.task.name)
    export = serving.export(task)
    several = torch.from_numpy(np.repeat(export.example, 3, axis=0))
    with torch.no_grad():
        expected = export.module(several)
    if export.traceable:
        shapes = (dict.fromkeys(export.dynamic, torch.export.Dim.AUTO),)
        program = torch.export.export(export.module, (torch.from_numpy(export.example),), dynamic_shapes=shapes)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(several), expected, rtol=1e-5, atol=1e-5)
    answers = serving(export.metadata).describe(several.numpy(), expected.numpy())
    assert len(answers) == len(several)
    json.dumps([answer.values for answer in answers])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_exported_network_is_proved_on_test_samples(name: str, datasets: Path, tmp_path: Path) -> None:
    """Its own answers pass; those of a network with other weights or another preprocessing do not."""
    config, context = small(name), here(tmp_path)
    dataset = opened(config, datasets)
    task = build(config, dataset, context)
    source = load_task(config.task.name)[1](config.task, dataset, "test")
    serving = load_serving(config.task.name)
    module = serving.export(task).module
    few = np.arange(min(6, len(source)))

    def differing(program: Callable[[torch.Tensor], torch.Tensor]) -> tuple[int, int]:
        with torch.no_grad():
            task.train(False)
            pairs = list(serving.answered(task, source, few))
            return sum(not agree(program(torch.from_numpy(q)).numpy(), a) for q, a in pairs), len(pairs)

    found, count = differing(module)
    assert count > 0
    assert found == 0
    with torch.no_grad():
        spoilt = deepcopy(module)
        for parameter in spoilt.parameters():
            parameter.add_(0.2)
    assert differing(spoilt)[0] == count


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_state_comes_back(name: str, datasets: Path, tmp_path: Path) -> None:
    config = small(name)
    dataset = opened(config, datasets)
    one, again = build(config, dataset, here(tmp_path)), build(config, dataset, here(tmp_path))
    assert weights_sha256(one.state_dict()) == weights_sha256(again.state_dict()), "building must follow the seed"
    other = build(config.model_copy(update={"seed": 7}), dataset, here(tmp_path))
    assert weights_sha256(other.state_dict()) != weights_sha256(one.state_dict())
    other.load_state_dict(one.state_dict())
    assert weights_sha256(other.state_dict()) == weights_sha256(one.state_dict())


class Broken(Exception):
    """Stands for a kill: nothing catches it."""


def attempt(
    config: ExperimentConfig, datasets: Path, folder: Path, before: Callable[[Task, int], None] = lambda *_: None
) -> Outcome:
    """A training on few samples as a worker makes it; `before` is called before each step."""
    folder.mkdir(exist_ok=True)
    context, dataset = here(folder), opened(config, datasets)
    task = build(config, dataset, context)
    step, done = task.train_step, 0

    def stepped(batch: Any, engine: Any) -> Any:
        nonlocal done
        before(task, done)
        done += 1
        return step(batch, engine)

    task.train_step = stepped  # type: ignore[method-assign]
    try:
        return train(task, sources(config, dataset, 3 * config.train.batch_size), config, context)
    finally:
        context.close()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_killed_and_resumed_ends_with_the_same_bits(name: str, datasets: Path, tmp_path: Path) -> None:
    be_deterministic(threads=1)
    config = small(name, 4)
    whole = attempt(config, datasets, tmp_path / "whole")
    half = whole.steps // 2 + 1

    def stop(task: Task, done: int) -> None:
        if done == half - 1:
            (tmp_path / "killed" / STOP).touch()

    first = attempt(config, datasets, tmp_path / "killed", stop)
    assert not first.finished
    (tmp_path / "killed" / STOP).unlink()
    second = attempt(config, datasets, tmp_path / "killed")
    assert second.resumed_from == first.steps
    assert second.finished
    assert (second.weights_sha256, second.metrics) == (whole.weights_sha256, whole.metrics)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_nan_stops_the_run_and_spoils_no_checkpoint(name: str, datasets: Path, tmp_path: Path) -> None:
    config = small(name, 4)

    def spoil(task: Task, done: int) -> None:
        if done == 4:
            with torch.no_grad():
                for optimizer in task.optimizers.values():
                    for group in optimizer.param_groups:
                        for parameter in group["params"]:
                            parameter.mul_(math.nan)

    with pytest.raises(WorkError, match="nan"):
        attempt(config, datasets, tmp_path / "run", spoil)
    context = here(tmp_path / "run")
    found = context.checkpoints.load()
    assert found is not None, "the last good checkpoint is kept"
    assert all(tensor.isfinite().all() for tensor in found[1]["weights"].values())
