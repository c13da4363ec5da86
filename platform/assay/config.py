"""The typed form of `params.yaml`: what to run. Frozen, complete, and free of torch.

Unknown keys and wrong types are errors that name their path, what is allowed and the nearest name; all of
them are reported at once. `resolved` turns a config back into plain data, for hashing and for the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from assay.errors import InputError, known
from assay.schedule_config import TARGETS, ScheduleConfig
from assay.schema import Frozen, MetricName, Name, NestedError, resolved, typed, validate
from assay.search_config import SearchConfig

if TYPE_CHECKING:
    from assay.data.dataset import Card

Decay = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Headline:
    """The one metric by which checkpoints are chosen, trials compared and gates held, on `val/` and on `test/`."""

    metric: str
    maximize: bool = True

    def better(self, value: float, than: float | None) -> bool:
        """True where `value` is at least as good: of equals, the later is taken."""
        if than is None:
            return True
        return value >= than if self.maximize else value <= than


class TaskConfig(Frozen):
    """What a task lets the user choose. Each task's `config.py` extends it as `Config`."""

    name: str

    @property
    def headline(self) -> Headline:
        """Which of the task's metrics decides. It may follow from the choices."""
        raise NotImplementedError

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names that an evaluation reports, by which a search may choose; the headline is one of them."""
        return (self.headline.metric,)

    @classmethod
    def networks(cls) -> dict[str, dict[str, Any]]:
        """The space of this task's networks that `networks: true` searches: keys below `task`, as `space:` has them.

        Empty: this task has none. Every point of it must be a network that can be built.
        """
        return {}

    @property
    def files(self) -> tuple[str, ...]:
        """Files beside the dataset that the weights follow from, such as pretrained weights: hashed for the record."""
        return ()

    @classmethod
    def starter(cls, card: Card) -> dict[str, Any] | None:  # noqa: ARG003
        """A first experiment for a dataset that was just added: its block without `data`. None: not for such data."""
        return None


class SourceConfig(Frozen):
    """Where raw data comes from. Each importer extends it as `Source`."""

    kind: str


class SplitConfig(Frozen):
    """The fractions of a stratified split; together they make 1."""

    train: float = Field(0.7, gt=0, lt=1)
    val: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> SplitConfig:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test make {total:g}; they must make 1")
        return self


class DatasetConfig(Frozen):
    """One block of `datasets:`."""

    source: SerializeAsAny[SourceConfig]
    split: SplitConfig = SplitConfig()
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("source", mode="before")
    @classmethod
    def _typed_source(cls, value: Any) -> Any:
        from assay.data.importers import load_source

        return typed(value, "kind", load_source)


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
    """How long, how wide and how precisely to train. `batch_size` counts the samples of all workers together."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1)
    workers: int = Field(1, ge=0, description="0 trains in this process, without Ray")
    device: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = Field(1, ge=1, description="batches a step")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    compile: bool = Field(False, description="torch.compile, where this machine can")
    checkpoint_seconds: float = Field(10.0, ge=0, description="the most work that a kill can cost")

    @model_validator(mode="after")
    def _divisible(self) -> TrainConfig:
        if self.workers > 1 and self.batch_size % self.workers:
            down = self.batch_size // self.workers * self.workers
            near = down or self.workers
            raise ValueError(f"batch_size {self.batch_size} does not divide by workers {self.workers}; try {near}")
        return self


class GateConfig(Frozen):
    """What a model must show before it may be champion. `tolerance` is how far below the champion it may lie."""

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
        from assay.task import load_config

        return typed(value, "name", load_config)


class Params(Frozen):
    """All of `params.yaml`."""

    datasets: dict[Name, DatasetConfig] = {}
    experiments: dict[Name, ExperimentConfig] = {}
    presets: dict[Name, dict[Name, dict[str, Any]]] = Field(
        {}, description="other settings of an experiment by name: dotted keys and their values"
    )
    searches: dict[Name, SearchConfig] = {}
    schedules: dict[Name, ScheduleConfig] = {}

    @model_validator(mode="after")
    def _data_exist(self) -> Params:
        missing = [
            (f"experiments.{name}.data", known("dataset", e.data, list(self.datasets)))
            for name, e in self.experiments.items()
            if e.data not in self.datasets
        ]
        missing += [
            (f"presets.{name}", known("experiment", name, list(self.experiments)))
            for name in self.presets
            if name not in self.experiments
        ]
        missing += [
            (f"searches.{name}.experiment", known("experiment", s.experiment, list(self.experiments)))
            for name, s in self.searches.items()
            if s.experiment not in self.experiments
        ]
        missing += [
            (f"schedules.{name}.{TARGETS[s.flow]}", line)
            for name, s in self.schedules.items()
            if (line := self._lost(s)) is not None
        ]
        if missing:
            raise NestedError(missing)
        return self

    def _lost(self, schedule: ScheduleConfig) -> str | None:
        """One line where what a schedule is about does not exist."""
        kind = "search" if schedule.search is not None else "experiment"
        names = list(self.searches if schedule.search is not None else self.experiments)
        return None if schedule.target in names else known(kind, schedule.target, names)

    def schedule(self, name: str) -> ScheduleConfig:
        if name not in self.schedules:
            raise InputError(f"params.yaml: {known('schedule', name, list(self.schedules))}")
        return self.schedules[name]

    def preset(self, experiment: str, name: str) -> ExperimentConfig:
        """An experiment with the settings of one of its presets."""
        presets = self.presets.get(experiment, {})
        if name not in presets:
            raise InputError(f"params.yaml: experiment {experiment!r}: {known('preset', name, list(presets))}")
        return replaced(
            self.experiment(experiment), presets[name].items(), f"params.yaml: presets.{experiment}.{name}:"
        )

    def experiment(self, name: str) -> ExperimentConfig:
        if name not in self.experiments:
            raise InputError(f"params.yaml: {known('experiment', name, list(self.experiments))}")
        return self.experiments[name]

    def search(self, name: str) -> SearchConfig:
        if name not in self.searches:
            raise InputError(f"params.yaml: {known('search', name, list(self.searches))}")
        return self.searches[name]

    def dataset(self, name: str) -> DatasetConfig:
        if name not in self.datasets:
            raise InputError(f"params.yaml: {known('dataset', name, list(self.datasets))}")
        return self.datasets[name]


def load_params(path: Path) -> Params:
    """Read and check `params.yaml`.

    Raises:
        InputError: the file is missing, is no YAML, or does not fit; one line for each thing that is wrong.
    """
    return parse_params(read_yaml(path), path.name)


def read_yaml(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run this inside an Assay project") from None
    except (YAMLError, ValueError) as error:  # ValueError: bytes that are no text, a date that does not exist
        raise InputError(f"{path.name}: not readable as YAML: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"{path.name}: must be a mapping with the keys {', '.join(Params.model_fields)}")
    return data


def parse_params(data: Mapping[str, Any], origin: str) -> Params:
    return validate(Params, data, origin)


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
            raise InputError(f"--set {assignment}: the value is not readable as YAML") from None
    return replaced(config, values, "--set")


def replaced(config: ExperimentConfig, values: Iterable[tuple[str, Any]], origin: str) -> ExperimentConfig:
    """The config with the values of dotted keys replaced; a number is a place in a list, counted from 0.

    Raises:
        InputError: a key that does not exist, or a value that does not fit.
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
    """The value of a dotted key, as plain data; None where there is none."""
    node: Any = resolved(config)
    for part in key.split("."):
        node = _inside(node, part)
    return node


def _inside(node: Any, part: str) -> Any:
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    return node.get(part) if isinstance(node, dict) else None


def located(config: ExperimentConfig, root: Path) -> ExperimentConfig:
    """The config with the files that its task names as absolute paths: relative ones are below `root`, the project."""
    data = resolved(config)
    names = {name: str(root / name) for name in config.task.files}
    data["task"] = _mapped(data["task"], lambda text: names.get(text, text))
    return validate(ExperimentConfig, data, "params.yaml")


def moved(data: Mapping[str, Any], root: str, here: str) -> Mapping[str, Any]:
    """Plain data whose files below `root`, a project on another machine, are called as they are below `here`."""
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
