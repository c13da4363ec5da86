"""THE contract: what a task gives, what it gets, and how it is found. Imports no torch by itself.

A task is a folder `assay/tasks/<name>/` with

- `config.py`: `class Config(TaskConfig)`, what the user may choose; imports no torch.
- `task.py`: `class Task(assay.task.Task)` and `def source(config, dataset, split) -> Source`.

Its name is its folder and its import path, so there is no list to add it to. A name with a dot
(`acme.vision.segmentation`) is an import path of a task that lives outside Assay.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from assay.config import ExperimentConfig, TaskConfig
from assay.errors import InputError, known

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from assay.data.dataset import Dataset
    from assay.train.randomness import Draw

Batch = Any
"""What a task's source yields and its steps take: tensors, or a mapping of them."""


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


@dataclass(frozen=True)
class Picture:
    """A PNG that a person wants to see, and the table behind it where there is one."""

    name: str
    png: bytes
    table: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Export:
    """A network that takes raw input and gives the answer, preprocessing inside.

    Attributes:
        module: traceable by `torch.export`; takes one tensor, gives one tensor.
        example: an input as users send it.
        dynamic: the dimensions of the input whose size is free; dimension 0, the batch, always is.
        facts: what `describe` needs to put the answer into words; plain data.
    """

    module: nn.Module
    example: np.ndarray[Any, Any]
    dynamic: tuple[int, ...]
    facts: Mapping[str, Any]


class Source(Protocol):
    """Random access to the samples of one split."""

    def __len__(self) -> int: ...

    def load(self, indices: np.ndarray[Any, Any], draw: Draw | None) -> Batch:
        """The batch of these samples on the CPU. `draw` gives each sample its random numbers; None: no augmentation."""


class Context(Protocol):
    """Where this process stands among the workers. A local and a Ray version exist; a task sees no other runtime."""

    rank: int
    world_size: int
    device: torch.device

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over all workers in the backward pass."""

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over all workers, on every worker."""

    def synchronize_buffers(self, module: nn.Module) -> None:
        """Give every worker the buffers (running statistics) of rank 0."""


class Engine(Protocol):
    """Does the backward pass and the step, so that precision, clipping and accumulation live in one place."""

    def autocast(self) -> AbstractContextManager[Any]: ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled for precision and accumulation."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip, step and clear the gradients of this optimizer, at the end of each accumulation."""

    def optimize(self, loss: Tensor) -> None:
        """The one-loss case: `backward` and `step` of the only optimizer."""


class Metrics(Protocol):
    """Collects sums and counts in evaluation; they are added over batches and workers, and divided once at the end."""

    def add(self, name: str, total: Tensor, count: Tensor | int) -> None:
        """A mean: `total` is the sum over `count` samples. Reported as `<split>/<name>`."""

    def add_counts(self, name: str, counts: Tensor) -> None:
        """A table of counts, such as a confusion matrix, for `Task.summarize`."""


class Task(ABC):
    """A model with what it needs to learn. Built once a worker; the loop that drives it is closed."""

    headline: ClassVar[Headline]

    modules: Mapping[str, nn.Module]
    """What is saved, by name, unwrapped. A frozen helper network does not belong here."""

    optimizers: Mapping[str, torch.optim.Optimizer]

    @classmethod
    @abstractmethod
    def build(cls, config: ExperimentConfig, dataset: Dataset, context: Context) -> Task:
        """Make modules and optimizers on `context.device`, wrapping what trains in parallel."""

    @abstractmethod
    def train_step(self, batch: Batch, engine: Engine) -> Mapping[str, Tensor]:
        """One step on one batch, through `engine`. Each returned scalar is recorded as `train/<name>`."""

    @abstractmethod
    def eval_step(self, batch: Batch, metrics: Metrics) -> None:
        """Add the batch's sums and counts. Called in evaluation mode, without gradients."""

    def summarize(self, counts: Mapping[str, Tensor]) -> Mapping[str, float]:  # noqa: ARG002
        """Metrics that are no means, from the counts of the whole split."""
        return {}

    def pictures(self, counts: Mapping[str, Tensor]) -> Iterable[Picture]:  # noqa: ARG002
        """What a person wants to see after an evaluation."""
        return ()

    @abstractmethod
    def export(self) -> Export:
        """The network for serving, on the CPU, in evaluation mode."""

    @classmethod
    @abstractmethod
    def read(cls, path: Path, facts: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """One file as a batch of one for the exported module. Raises `InputError` with the reason for a bad file."""

    @classmethod
    @abstractmethod
    def describe(cls, outputs: np.ndarray[Any, Any], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The exported module's answers in words, one for each input."""

    def state_dict(self) -> dict[str, Tensor]:
        """The weights as `<module>/<key>`: what is hashed, saved and registered."""
        return {
            f"{name}/{key}": tensor
            for name, module in self.modules.items()
            for key, tensor in module.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, module in self.modules.items():
            prefix = f"{name}/"
            module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def train(self, mode: bool) -> None:
        for module in self.modules.values():
            module.train(mode)


def task_names() -> list[str]:
    """The tasks that ship with Assay: the folders of `assay/tasks`."""
    import assay.tasks

    return sorted(entry.name for entry in pkgutil.iter_modules(assay.tasks.__path__) if entry.ispkg)


def load_config(name: str) -> type[TaskConfig]:
    """The config class of a task, without importing torch."""
    config: type[TaskConfig] = _import(name, "config").Config
    return config


def load_task(name: str) -> tuple[type[Task], Any]:
    """The task's class and its `source(config, dataset, split)`."""
    module = _import(name, "task")
    return module.Task, module.source


def _import(name: str, part: str) -> ModuleType:
    package = name if "." in name else f"assay.tasks.{name}"
    path = f"{package}.{part}"
    if not all(path.split(".")):  # an empty step would make it a relative import
        raise InputError(known("task", name, task_names()))
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{path}.".startswith(f"{error.name}."):
            raise InputError(known("task", name, task_names())) from None
        raise  # the task is there, and something that it imports is not
