"""What each worker runs: build the task from plain data, train, and leave the outcome in the run's folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import AssayError, WorkError
from assay.files import private_folder, write_json
from assay.redaction import redact
from assay.train.folder import FAILURE, OUTCOME, SPOOL, TOLD

if TYPE_CHECKING:
    from assay.train.loop import Training


FORGET_SECONDS = 24 * 3600
"""After so long without a metric, what a killed worker left on its node is removed."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs, as plain data: it travels between processes and machines.

    Attributes:
        config: a resolved `ExperimentConfig`.
        dataset: folder of the dataset version, and its `hash`.
        folder: the run's folder, shared by all workers.
        compiled: whether networks go through `torch.compile`.
        project: the project's folder where the job was made, if workers may be on other nodes.
        store: the run's address in object storage, where its folder is not shared.
        attempt: sets the folders of this attempt apart from those of earlier ones on the same node.
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
    project: str = ""
    store: str = ""
    attempt: str = ""
    looks: tuple[float, ...] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def work_in_ray(plain: dict[str, Any]) -> None:
    """The train function of a Ray Train worker."""
    from assay.train.ray_context import RayContext, rank

    try:
        with _at_home(Job(**plain), rank()) as job, _sending(job, rank()):
            _guarded(job, lambda: RayContext(Path(job.folder), job.threads, job.compiled))
    except Exception as error:  # Ray writes it into its logs, as it is; what matters of it is in the run's folder
        raise WorkError(redact(f"{type(error).__name__}: {error}")) from None


def work_here(job: Job) -> None:
    """Train in this process."""
    import torch

    from assay.train.context import LocalContext

    device = torch.device("cuda" if job.gpu else "cpu")
    with _sending(job, 0):
        _guarded(job, lambda: LocalContext(Path(job.folder), device, job.threads, compiled=job.compiled))


@contextmanager
def _sending(job: Job, rank: int) -> Iterator[None]:
    """Keep the run in object storage, where it is kept there."""
    from assay.train.mirror import sending

    def warn(line: str) -> None:
        with (Path(job.folder) / TOLD).open("a") as file:
            file.write(f"warning: {line}\n")

    with sending(job.store, Path(job.folder), warn, writer=rank == 0):
        yield


@contextmanager
def _at_home(job: Job, rank: int) -> Iterator[Job]:
    """The job with a folder of this worker's on its own node, where nodes share none; gone at the end."""
    if not job.store:
        yield job
        return
    runs = Path(tempfile.gettempdir()) / f"assay-runs-{os.getuid()}"
    private_folder(runs)
    for other in runs.glob("*/*"):
        earlier = other.parent.name == job.run_id and other.name != job.attempt
        if earlier or _abandoned(other):
            shutil.rmtree(other, ignore_errors=True)
    folder = runs / job.run_id / job.attempt / f"rank-{rank}"
    try:
        yield replace(job, folder=str(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another worker's is there still
            folder.parent.rmdir()
            folder.parent.parent.rmdir()


def _abandoned(attempt: Path) -> bool:
    """Whether workers that were killed have left this folder, long ago."""
    try:
        last = max(path.stat().st_mtime for path in (attempt, *attempt.rglob(SPOOL)))
    except FileNotFoundError:  # it is being removed
        return False
    return time.time() - last > FORGET_SECONDS


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
    return {"message": redact(message), "expected": expected, "traceback": redact(traceback.format_exc())}


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
    config = parse_experiment(_config_here(job), "config")
    folder = _dataset_here(job, config.data, context.tell)
    dataset = Dataset(folder, read_card(folder, config.data), job.dataset_hash)
    task_class, source = load_task(config.task.name)
    torch.manual_seed(key(config.seed, "init"))
    sources = {split: source(config.task, dataset, split) for split in ("train", "val")}
    return Training(task_class.build(config, dataset, context), sources, config, context)


def _project_here(job: Job) -> Path:
    """The project on this node: where it was made if that is here too, else the job's package."""
    made = Path(job.project)
    return made if (made / "params.yaml").exists() else Path.cwd()


def _config_here(job: Job) -> Mapping[str, Any]:
    """The config with the files of the project as they are called on this node."""
    from assay.config import moved

    here = _project_here(job)
    return moved(job.config, job.project, str(here)) if job.project and str(here) != job.project else job.config


def _dataset_here(job: Job, name: str, tell: Callable[[str], None]) -> Path:
    """The folder of the dataset version on this node, fetched if need be."""
    if not job.project:
        return Path(job.dataset)
    from assay.settings import Settings
    from assay.train.node_data import version_here

    return version_here(Settings(project=_project_here(job)), name, job.dataset_hash, tell)


def _work(job: Job, context: Any) -> None:
    outcome = prepare(job, context).run(job.looks)
    context.close()
    if context.rank == 0:
        plain = {name: value for name, value in vars(outcome).items() if name != "weights"}
        write_json(context.folder / OUTCOME, plain)
