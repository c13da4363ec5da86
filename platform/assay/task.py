"""THE contract: what a task gives, what it gets, and how it is found. Imports no torch by itself.

A task is a folder `assay/tasks/<name>/` with

- `config.py`: `class Config(TaskConfig)`, what the user may choose; imports no torch.
- `task.py`: `class Task(assay.task.Task)` and `def source(config, dataset, split) -> Source`.

Its name is its folder and its import path, so there is no list to add it to. A name with a dot
(`acme.vision.segmentation`) is an import path of a task that lives outside Assay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from assay.config.experiment import ExperimentConfig
from assay.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from assay.data.dataset import Dataset
    from assay.train.randomness import Draw

Batch = Any
"""What a task's source yields and its steps take: tensors, or a mapping of them."""


@dataclass(frozen=True)
class Picture:
    """A PNG that a person wants to see, and the table behind it where there is one."""

    name: str
    png: bytes
    table: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Answer:
    """What a model says of one input: plain data, and pictures where they say it better or are the answer."""

    facts: Mapping[str, Any]
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Export:
    """A network that takes raw input and gives the answer, preprocessing inside.

    Attributes:
        module: takes one tensor, gives one tensor; the first dimension of both is the batch.
        example: an input as users send it.
        dynamic: the dimensions of the input whose size is free; dimension 0, the batch, always is.
        facts: what `read` and `describe` need to go from files to words; plain data.
        traceable: False where `torch.export` cannot follow the module: it is then registered as code plus weights.
    """

    module: nn.Module
    example: np.ndarray[Any, Any]
    dynamic: tuple[int, ...]
    facts: Mapping[str, Any]
    traceable: bool = True


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
    fresh: bool
    """False where trained weights will be loaded over those that `build` makes: pretrained ones need not be found."""

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over all workers in the backward pass.

        Batch normalization in it uses the moments of the whole batch, so that the number of workers changes nothing.
        What requires no gradient now is left alone; a task that thaws parameters later wraps again.
        """

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over all workers, on every worker. It is no part of the graph: no gradient flows through it."""

    def gather(self, rows: Tensor) -> Tensor:
        """[n, ...] of each worker, `n` its own, joined in the order of the ranks, on every worker."""

    def warn(self, line: str) -> None:
        """Tell people, on the terminal and in the run's record, something that does not stop the run."""

    def synchronize_buffers(self, module: nn.Module) -> None:
        """Give every worker the buffers (running statistics) of rank 0."""


class Engine(Protocol):
    """Does the backward pass and the step, so that precision, clipping and accumulation live in one place."""

    progress: float
    """How far the training is at this step: 0 at the first, below 1 at the last."""

    def autocast(self) -> AbstractContextManager[Any]: ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled for precision and accumulation."""

    def step(self, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor] | None = None) -> bool:
        """Clip, step and clear the gradients of this optimizer, at the end of each accumulation: True if it stepped.

        `closure`, for optimizers that evaluate the loss several times a step (L-BFGS), computes the gradients anew
        and returns the loss; such an optimizer knows no accumulation and no loss scaling.
        """

    def optimize(self, loss: Tensor) -> None:
        """The one-loss case: `backward` and `step` of the only optimizer."""


class Metrics(Protocol):
    """Collects sums and counts in evaluation; they are added over batches and workers, and divided once at the end."""

    def add(self, name: str, total: Tensor, count: Tensor | int) -> None:
        """A mean: `total` is the sum over `count` samples. Reported as `<split>/<name>`."""

    def add_counts(self, name: str, counts: Tensor) -> None:
        """A table of counts, such as a confusion matrix, for `Task.summarize`: added up."""

    def add_rows(self, name: str, rows: Tensor) -> None:
        """[n, ...], n of 0 or more, for metrics that need every sample: joined over batches and workers, in no order
        that a task may rely on. Call it for each batch; let a column hold the sample's number where it matters.
        """


class Task(ABC):
    """A model with what it needs to learn. Built once a worker; the loop that drives it is closed.

    All randomness of a training step comes with the batch, from the `Draw` that its source was given, so that the
    number of workers changes nothing; torch's own generators, which differ by worker, serve dropout alone.
    """

    watched: ClassVar[bool] = False
    """Whether people want to see the pictures of the validation split while it trains, not only those of the end."""

    modules: Mapping[str, nn.Module]
    """What is saved, by name, unwrapped. A frozen helper network does not belong here."""

    optimizers: Mapping[str, torch.optim.Optimizer]

    facts: Mapping[str, str] = {}
    """What the record of a run should say of what was built, such as where pretrained weights came from."""

    @classmethod  # noqa: B027 (a task may have nothing to refuse)
    def check(cls, config: ExperimentConfig, dataset: Dataset) -> None:
        """Refuse, before a run begins, what cannot work together. Raises `InputError`: the key, why, the mend."""

    @classmethod
    @abstractmethod
    def build(cls, config: ExperimentConfig, dataset: Dataset, context: Context) -> Task:
        """Make modules and optimizers on `context.device`, wrapping what trains in parallel."""

    @abstractmethod
    def train_step(self, batch: Batch, engine: Engine) -> Mapping[str, Tensor]:
        """One step on one batch, through `engine`. Each returned scalar is recorded as `train/<name>`."""

    @abstractmethod
    def eval_step(self, batch: Batch, metrics: Metrics) -> None:
        """Add the batch's sums, counts and rows. Called in evaluation mode, without gradients."""

    def summarize(self, tables: Mapping[str, Tensor]) -> Mapping[str, float]:  # noqa: ARG002
        """Metrics that are no means, from the counts and rows of the whole split, on the CPU."""
        return {}

    def pictures(self, tables: Mapping[str, Tensor], source: Source) -> Iterable[Picture]:  # noqa: ARG002
        """What a person wants to see after an evaluation. `source` is the split, for a look at its samples."""
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
    def describe(
        cls, inputs: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any], facts: Mapping[str, Any]
    ) -> list[Answer]:
        """The exported module's answers in words and pictures, one for each input."""

    @classmethod
    def sample(cls, count: int, seed: int, facts: Mapping[str, Any]) -> np.ndarray[Any, Any]:  # noqa: ARG003
        """Inputs for a model that needs no file, such as latents of a generator: the first dimension is `count`."""
        raise InputError("this model answers for files: name some, or folders of them")

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
