"""One block of `experiments:`, and how its values are replaced. Frozen, complete, and free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from assay.config.plugin import TaskConfig, load_config
from assay.config.schema import Frozen, MetricName, Name, resolved, typed, validate
from assay.errors import InputError, known

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Frozen):
    """An optimizer and its schedule. The learning rate follows the schedule from `lr`, by step."""

    name: Literal["adamw", "adam", "sgd", "lbfgs"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1, description="fraction of all steps")


class TrainConfig(Frozen):
    """How long, on how many workers and how precisely to train. `batch_size` counts the samples of all workers."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1)
    workers: int = Field(1, ge=0, description="0: train in this process, without Ray")
    device: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = Field(1, ge=1, description="batches per step")
    clip: float | None = Field(None, gt=0, description="maximum norm of the gradient")
    compile: bool = Field(False, description="use torch.compile if this machine can")
    checkpoint_seconds: float = Field(10.0, ge=0, description="the most training time that a kill can cost")

    @model_validator(mode="after")
    def _divisible(self) -> TrainConfig:
        if self.workers > 1 and self.batch_size % self.workers:
            down = self.batch_size // self.workers * self.workers
            near = down or self.workers
            raise ValueError(f"batch_size {self.batch_size} is not divisible by workers {self.workers}; try {near}")
        return self


class GateConfig(Frozen):
    """What a model must reach to become champion. `tolerance`: how far it may lie below the champion."""

    min: dict[MetricName, float] = {}
    max: dict[MetricName, float] = {}
    tolerance: float = Field(0.0, ge=0)


class ExperimentConfig(Frozen):
    """One block of `experiments:`."""

    task: SerializeAsAny[TaskConfig]
    data: Name
    seed: int = Field(0, ge=0, lt=2**31)
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    gate: GateConfig = GateConfig()

    @field_validator("task", mode="before")
    @classmethod
    def _typed_task(cls, value: Any) -> Any:
        return typed(value, "name", load_config)


def parse_experiment(data: Mapping[str, Any], origin: str) -> ExperimentConfig:
    return validate(ExperimentConfig, data, origin)


def override(config: ExperimentConfig, assignments: list[str]) -> ExperimentConfig:
    """Apply `key=value` pairs such as `optimizer.lr=0.01`; values are read as YAML and checked by type."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    values: list[tuple[str, Any]] = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise InputError(f"--set {assignment}: write it as key=value, such as optimizer.lr=0.01")
        try:
            values.append((key, YAML(typ="safe").load(text)))
        except (YAMLError, ValueError):
            raise InputError(f"--set {assignment}: the value is not valid YAML") from None
    return replaced(config, values, "--set")


def replaced(config: ExperimentConfig, values: Iterable[tuple[str, Any]], origin: str) -> ExperimentConfig:
    """The config with the values of dotted keys replaced; a number is an index in a list, from 0.

    Raises:
        InputError: a key does not exist, or a value does not fit.
    """
    data = resolved(config)
    for key, value in values:
        *parents, leaf = key.split(".")
        node: Any = data
        for parent in parents:
            node = _inside(node, parent)
        if isinstance(node, dict) and (leaf in node or _open_mapping(key)):
            node[leaf] = value
        elif isinstance(node, list) and leaf.isdigit() and int(leaf) < len(node):
            node[int(leaf)] = value
        else:
            raise InputError(f"{origin} {key}: {known('key', key, _paths(data))}")
    return validate(ExperimentConfig, data, origin.rstrip(":"))


def value_at(config: ExperimentConfig, key: str) -> Any:
    """The value of a dotted key, as plain data; None if it is missing."""
    node: Any = resolved(config)
    for part in key.split("."):
        node = _inside(node, part)
    return node


def _inside(node: Any, part: str) -> Any:
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    return node.get(part) if isinstance(node, dict) else None


def located(config: ExperimentConfig, root: Path) -> ExperimentConfig:
    """The config with absolute paths for the files of its task; relative ones are below `root`, the project."""
    data = resolved(config)
    names = {name: str(root / name) for name in config.task.files}
    data["task"] = _mapped(data["task"], lambda text: names.get(text, text))
    return validate(ExperimentConfig, data, "params.yaml")


def moved(data: Mapping[str, Any], root: str, here: str) -> Mapping[str, Any]:
    """Plain data in which files below `root`, a project on another machine, are renamed to those below `here`."""
    below = f"{root}/"
    plain: Mapping[str, Any] = _mapped(
        data, lambda text: f"{here}/{text.removeprefix(below)}" if text.startswith(below) else text
    )
    return plain


def _mapped(data: Any, change: Callable[[str], str]) -> Any:
    if isinstance(data, dict):
        return {key: _mapped(value, change) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_mapped(value, change) for value in data]
    return change(data) if isinstance(data, str) else data


def _open_mapping(key: str) -> bool:
    return key.startswith(("gate.min.", "gate.max."))


def _paths(data: Any, prefix: str = "") -> list[str]:
    paths: list[str] = []
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        nested = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value))
        paths += _paths(value, f"{prefix}{key}.") if nested and value else [f"{prefix}{key}"]
    return paths
