"""What every task must keep, found by walking the folders: a new task is tested without an edit here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.config import ExperimentConfig, load_params
from assay.data.dataset import Dataset, prepare
from assay.data.version import folder_hash
from assay.task import Task, load_config, load_task, task_names
from assay.train.checkpoint import weights_sha256
from assay.train.context import LocalContext
from assay.train.engine import StepEngine
from assay.train.loader import Loader
from assay.train.loop import evaluate
from assay.train.randomness import key

REPOSITORY = Path(__file__).parents[2]
PARAMS = load_params(REPOSITORY / "params.yaml")
MIXTURE = ExperimentConfig.model_validate({"task": {"name": "tests.support.mixture_gan"}, "data": "digits"})
EXPERIMENTS = {**PARAMS.experiments, "mixture (test only)": MIXTURE}


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """Every dataset of params.yaml, prepared."""
    found = {}
    root = tmp_path_factory.mktemp("datasets")
    for name, config in PARAMS.datasets.items():
        card = prepare(REPOSITORY, name, config, root / name, lambda *_: None)
        found[name] = Dataset(root / name, card, folder_hash(root / name, None)[0])
    return found


def build(config: ExperimentConfig, dataset: Dataset, folder: Path) -> tuple[Task, LocalContext]:
    context = LocalContext(folder, torch.device("cpu"), 1)
    torch.manual_seed(key(config.seed, "init"))
    return load_task(config.task.name)[0].build(config, dataset, context), context


@pytest.mark.parametrize("name", task_names())
def test_config_stands_alone(name: str) -> None:
    assert load_config(name)(name=name).name == name
    code = f"import sys; from assay.task import load_config; load_config({name!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, "reading a config imports torch"


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
def test_steps_evaluates_and_exports(name: str, datasets: dict[str, Dataset], tmp_path: Path) -> None:
    config = EXPERIMENTS[name]
    dataset = datasets[config.data]
    task, context = build(config, dataset, tmp_path)
    source = load_task(config.task.name)[1]
    before = weights_sha256(task.state_dict())
    engine = StepEngine(task.optimizers, config.train, config.optimizer, context.device, 10)
    loader = Loader(source(config.task, dataset, "train"), config.train.batch_size, config.seed, 0, 1)
    task.train(True)
    engine.begin(0)
    losses = task.train_step(next(loader.epoch(0)), engine)
    assert losses
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    assert weights_sha256(task.state_dict()) != before, "a step must change the weights"

    metrics, pictures = evaluate(task, source(config.task, dataset, "val"), "val", 32, context)
    assert f"val/{task.headline.metric}" in metrics
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(picture.png.startswith(b"\x89PNG") for picture in pictures)

    export = task.export()
    shapes = (dict.fromkeys(export.dynamic, torch.export.Dim.AUTO),)
    example = torch.from_numpy(export.example)
    program = torch.export.export(export.module, (example,), dynamic_shapes=shapes).module()
    several = torch.from_numpy(np.repeat(export.example, 3, axis=0))
    with torch.no_grad():
        torch.testing.assert_close(program(several), export.module(several), rtol=0, atol=0)
        answers = task.describe(export.module(several).numpy(), export.facts)
    assert len(answers) == len(several)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_state_comes_back(name: str, datasets: dict[str, Dataset], tmp_path: Path) -> None:
    config = EXPERIMENTS[name]
    one, _ = build(config, datasets[config.data], tmp_path)
    again, _ = build(config, datasets[config.data], tmp_path)
    assert weights_sha256(one.state_dict()) == weights_sha256(again.state_dict()), "building must follow the seed"
    other, _ = build(config.model_copy(update={"seed": 7}), datasets[config.data], tmp_path)
    assert weights_sha256(other.state_dict()) != weights_sha256(one.state_dict())
    other.load_state_dict(one.state_dict())
    assert weights_sha256(other.state_dict()) == weights_sha256(one.state_dict())
