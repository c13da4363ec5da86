"""THE contract: what a task provides, what it receives, and how it is found. Does not import torch itself.

A task is a folder `assay/tasks/<name>/` with

- `config.py`: `class Config(TaskConfig)`, what the user may choose; does not import torch.
- `task.py`: `class Task(assay.task.Task)` and `def source(config, dataset, split) -> Source`: what trains.
- `serving.py`: `class Serving(assay.task.Serving)`: what answers with a trained network. Without it a task can be
  trained and evaluated, but not registered.

Its name is its folder and its import path, so there is no list to add it to. A name with a dot
(`acme.vision.segmentation`) is the import path of a task outside Assay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from assay.config.experiment import ExperimentConfig
from assay.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from assay.data.dataset import Dataset
    from assay.train.randomness import Draw

Batch = Any
"""What a task's source returns and its steps take: tensors, or a mapping of them."""


@dataclass(frozen=True)
class Picture:
    """A PNG for people, and the table behind it, if there is one."""

    name: str
    png: bytes
    table: Sequence[Mapping[str, Any]] = ()


class Source(Protocol):
    """Random access to the samples of one split."""

    def __len__(self) -> int: ...

    def load(self, indices: np.ndarray[Any, Any], draw: Draw | None) -> Batch:
        """The batch of these samples on the CPU. `draw` holds each sample's random numbers; None: no augmentation."""

    @property
    def in_memory(self) -> bool:
        """Whether `load` only indexes memory. If not, threads load batches ahead of the training step."""


class Context(Protocol):
    """This process among the workers. A local and a Ray version exist; a task sees no other runtime."""

    rank: int
    world_size: int
    device: torch.device
    pretrained: bool
    """Whether `build` loads pretrained weights. False if trained weights will replace them anyway."""

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over all workers in the backward pass.

        Batch normalization in it uses the moments of the whole batch, so that the number of workers changes nothing.
        Parameters that require no gradient now are left alone; a task that thaws them later wraps again.
        """

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over all workers, on every worker. Not part of the graph: no gradient flows through it."""

    def gather(self, rows: Tensor) -> Tensor:
        """[n, ...] of each worker, where `n` may differ, joined in rank order, on every worker."""

    def warn(self, line: str) -> None:
        """Show a line on the terminal and in the run's record, about something that does not stop the run."""

    def synchronize_buffers(self, module: nn.Module) -> None:
        """Give every worker the buffers (running statistics) of rank 0."""


class Engine(Protocol):
    """Runs the backward pass and the step, so that precision, clipping and accumulation live in one place."""

    progress: float
    """How far the training has come at this step: 0 at the first, below 1 at the last."""

    def autocast(self) -> AbstractContextManager[Any]: ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled for precision and accumulation."""

    def step(self, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor] | None = None) -> bool:
        """Clip, step and clear the gradients of this optimizer, at the end of each accumulation. True if it stepped.

        `closure`, for optimizers that evaluate the loss several times a step (L-BFGS), recomputes the gradients and
        returns the loss; such an optimizer supports neither accumulation nor loss scaling.
        """

    def optimize(self, loss: Tensor) -> None:
        """The one-loss case: `backward` and `step` of the only optimizer."""


class Metrics(Protocol):
    """Collects sums and counts in an evaluation: added up over batches and workers, divided once at the end."""

    def add(self, name: str, total: Tensor, count: Tensor | int) -> None:
        """A mean: `total` is the sum over `count` samples. Reported as `<split>/<name>`."""

    def add_counts(self, name: str, counts: Tensor) -> None:
        """A table of counts, such as a confusion matrix, for `Task.summarize`: added up."""

    def add_rows(self, name: str, rows: Tensor) -> None:
        """[n, ...] with n >= 0, for metrics that need every sample: joined over batches and workers in no particular
        order. Call it for each batch; if a sample's number matters, put it in a column.
        """


class Task(ABC):
    """The training side of a task: a model and its optimizers, built once per worker. The loop around it is closed.

    All randomness of a training step comes with the batch, from the `Draw` passed to its source, so that the number
    of workers changes nothing. Torch's own generators, which differ by worker, are for dropout only.
    """

    watched: ClassVar[bool] = False
    """Whether the pictures of the validation split are worth seeing during training, not only at its end."""

    modules: Mapping[str, nn.Module]
    """What is saved, by name, unwrapped. A frozen helper network does not belong here."""

    optimizers: Mapping[str, torch.optim.Optimizer]

    notes: Mapping[str, str] = {}
    """Added to the run's record: what was built, such as where pretrained weights came from."""

    @classmethod  # noqa: B027 (a task may have nothing to refuse)
    def check(cls, config: ExperimentConfig, dataset: Dataset) -> None:
        """Refuse what cannot work together, before a run begins. Raises `InputError`: the key, why, and the fix."""

    @classmethod
    @abstractmethod
    def build(cls, config: ExperimentConfig, dataset: Dataset, context: Context) -> Task:
        """Create modules and optimizers on `context.device`, wrapping what trains in parallel."""

    @abstractmethod
    def train_step(self, batch: Batch, engine: Engine) -> Mapping[str, Tensor]:
        """One step on one batch, through `engine`. Each returned scalar is recorded as `train/<name>`."""

    @abstractmethod
    def eval_step(self, batch: Batch, metrics: Metrics) -> None:
        """Add the batch's sums, counts and rows. Called in evaluation mode, without gradients."""

    def summarize(self, tables: Mapping[str, Tensor]) -> Mapping[str, float]:  # noqa: ARG002
        """Metrics that are not means, from the counts and rows of the whole split, on the CPU."""
        return {}

    def pictures(self, tables: Mapping[str, Tensor], source: Source) -> Iterable[Picture]:  # noqa: ARG002
        """Pictures of an evaluation, for people. `source` gives access to the split's samples."""
        return ()

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


AnyTask = TypeVar("AnyTask", bound=Task)


@dataclass(frozen=True)
class Export:
    """A network that takes raw input and returns the answer, preprocessing included.

    Attributes:
        module: takes one tensor, returns one tensor; the first dimension of both is the batch.
        example: an input as users send it.
        dynamic: the dimensions of the input whose size is free; dimension 0, the batch, always is.
        metadata: plain data that `Serving` needs to get from files to words; stored with the registered model.
        traceable: False if `torch.export` cannot follow the module: it is then registered as code plus weights.
    """

    module: nn.Module
    example: np.ndarray[Any, Any]
    dynamic: tuple[int, ...]
    metadata: Mapping[str, Any]
    traceable: bool = True


@dataclass(frozen=True)
class Answer:
    """What a model answers for one input: plain data, and pictures if they are clearer or are the answer itself."""

    values: Mapping[str, Any]
    pictures: Sequence[Picture] = ()


class Serving(ABC, Generic[AnyTask]):
    """The serving side of a task: how its network is exported, and how files and words get in and out of it.

    Only `export` and `answered` may need the training side, and import it themselves: predicting loads none of it.

    Args:
        metadata: that of the `Export`.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata

    @classmethod
    @abstractmethod
    def export(cls, task: AnyTask) -> Export:
        """The trained network for serving, on the CPU, in evaluation mode. Raises `InputError` if there is none."""

    @classmethod
    @abstractmethod
    def answered(
        cls, task: AnyTask, source: Any, chosen: np.ndarray[Any, Any]
    ) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Samples of a split as users send them, each with what the trained task answers to it in an evaluation.

        Before a model is registered, its exported program must give the same answers. So the input is what is stored,
        and the answer goes the way of `eval_step`: through the source's preprocessing and the network in `task`.

        Args:
            source: of the split; the task's own.
            chosen: int64, the samples by their numbers in the source.

        Returns:
            Batches of one: an input of the exported module, and the output expected from it.
        """

    @abstractmethod
    def read(self, path: Path) -> np.ndarray[Any, Any]:
        """One file as a batch of one for the exported module. Raises `InputError`: the path and what is wrong."""

    @abstractmethod
    def describe(self, inputs: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any]) -> list[Answer]:
        """The exported module's answers in words and pictures, one for each input."""

    def sample(self, count: int, seed: int) -> np.ndarray[Any, Any]:  # noqa: ARG002
        """Inputs for a model that needs no file, such as latents of a generator: the first dimension is `count`."""
        raise InputError("this model answers for files: name files, or folders of them")
