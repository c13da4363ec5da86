"""What each worker runs: build the task from plain data, train, and leave the outcome in the run's folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import AssayError, WorkError
from assay.files import private_folder, write_json
from assay.redaction import redact
from assay.train.folder import FAILURE, OUTCOME, SPOOL, TOLD
from assay.workers.job import Job

if TYPE_CHECKING:
    from assay.train.context import LocalContext


FORGET_SECONDS = 24 * 3600
"""After so long without a metric, what a killed worker left on its node is removed."""


def work_in_ray(plain: dict[str, Any]) -> None:
    """The train function of a Ray Train worker."""
    from assay.workers.ray_context import RayContext, rank

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
    from assay.storage.run_mirror import sending

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


def _guarded(job: Job, make_context: Callable[[], LocalContext]) -> None:
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


def _work(job: Job, context: LocalContext) -> None:
    from assay.train.prepare import prepare
    from assay.workers.arrive import arrive

    here = arrive(job, context.tell)
    outcome = prepare(here.config, here.dataset, context).run(job.looks)
    context.close()
    if context.rank == 0:
        write_json(context.folder / OUTCOME, outcome.plain())
