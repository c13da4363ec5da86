"""What each worker runs: build the task from plain data, train, and leave the outcome in the run's folder."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import AssayError
from assay.files import write_json
from assay.train.folder import FAILURE, OUTCOME

if TYPE_CHECKING:
    from assay.train.loop import Training


@dataclass(frozen=True)
class Job:
    """All that a worker needs, as plain data: it travels between processes and machines.

    Attributes:
        config: a resolved `ExperimentConfig`.
        dataset: folder of the dataset version, and its `hash`.
        folder: the run's folder, shared by all workers.
        compiled: whether networks go through `torch.compile`.
        looks: parts of the first epoch after which the validation split is looked at.
    """

    run_id: str
    config: Mapping[str, Any]
    dataset: str
    dataset_hash: str
    folder: str
    threads: int
    gpu: bool
    compiled: bool = False
    looks: tuple[float, ...] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def work_in_ray(plain: dict[str, Any]) -> None:
    """The train function of a Ray Train worker."""
    from assay.train.ray_context import RayContext

    job = Job(**plain)
    _guarded(job, lambda: RayContext(Path(job.folder), job.threads, job.compiled))


def work_here(job: Job) -> None:
    """Train in this process."""
    import torch

    from assay.train.context import LocalContext

    device = torch.device("cuda" if job.gpu else "cpu")
    _guarded(job, lambda: LocalContext(Path(job.folder), device, job.threads, compiled=job.compiled))


def _guarded(job: Job, make_context: Any) -> None:
    """Run, and write down why it failed where it did: the driver tells a failure from a death by this file."""
    try:
        _work(job, make_context())
    except Exception as error:
        if not _lost_peer(error):
            write_json(Path(job.folder) / FAILURE, failure_of(error))
        raise


def failure_of(error: Exception) -> dict[str, Any]:
    """Why a training failed, for people, with the traceback of the exception that is being handled."""
    expected = isinstance(error, AssayError)
    message = str(error) if expected else f"{type(error).__name__}: {error}"
    return {"message": message, "expected": expected, "traceback": traceback.format_exc()}


def _lost_peer(error: Exception) -> bool:
    """True for what a worker sees when another one fails or dies: the cause is elsewhere."""
    import torch.distributed as distributed

    text = str(error).lower()
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and any(name in text for name in ("gloo", "nccl"))
    )


def prepare(job: Job, context: Any) -> Training:
    """The `Training` of a job, from its newest checkpoint if there is one; the same bits in every process."""
    import torch

    from assay.config import parse_experiment
    from assay.data.dataset import Dataset, read_card
    from assay.task import load_task
    from assay.train.loop import Training
    from assay.train.randomness import key

    torch.set_num_threads(job.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # a check that costs a write of every output
    torch.backends.cudnn.benchmark = False
    config = parse_experiment(job.config, "config")
    folder = Path(job.dataset)
    dataset = Dataset(folder, read_card(folder, config.data), job.dataset_hash)
    task_class, source = load_task(config.task.name)
    torch.manual_seed(key(config.seed, "init"))
    sources = {split: source(config.task, dataset, split) for split in ("train", "val")}
    return Training(task_class.build(config, dataset, context), sources, config, context)


def _work(job: Job, context: Any) -> None:
    outcome = prepare(job, context).run(job.looks)
    context.close()
    if context.rank == 0:
        plain = {name: value for name, value in vars(outcome).items() if name != "weights"}
        write_json(context.folder / OUTCOME, plain)
