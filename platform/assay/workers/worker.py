"""Runs in each worker: builds the task from plain data, trains, and leaves the outcome in the run's folder."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import WorkError
from assay.files import write_json
from assay.program import start_program
from assay.redaction import redact
from assay.system_errors import explained
from assay.train.folder import FAILURE, LOG, OUTCOME
from assay.workers.assignment import Assignment
from assay.workers.starts import note_start

if TYPE_CHECKING:
    from assay.train.context import LocalContext


def arrive_in_ray(plain: dict[str, Any]) -> None:
    """Find what a Ray Train worker needs on its node, before it joins the others; the first of a node reports."""
    start_program()
    import ray.train

    from assay.workers.arrive import arrive

    assignment = Assignment(**plain)
    tells = not assignment.store and ray.train.get_context().get_local_rank() == 0

    def tell(line: str) -> None:
        with (Path(assignment.folder) / LOG).open("a") as file:
            file.write(line + "\n")

    arrive(assignment, tell if tells else lambda _: None)


def work_in_ray(plain: dict[str, Any]) -> None:
    """The train function of a Ray Train worker."""
    start_program()
    from assay.workers.home import at_home
    from assay.workers.ray_context import RayContext, rank

    try:
        with at_home(Assignment(**plain), rank()) as here, _sending(here, rank()):
            _run_guarded(here, lambda: RayContext(Path(here.folder), here.threads, here.compiled), replaced=True)
    except Exception as error:  # Ray logs it as it is raised here; the details are in the run's folder
        raise WorkError(failure_of(error, Path(plain["folder"]))["message"]) from None


def work_here(assignment: Assignment) -> None:
    """Train in this process."""
    import torch

    from assay.train.context import LocalContext

    device = torch.device("cuda" if assignment.gpu else "cpu")
    folder, threads, compiled = Path(assignment.folder), assignment.threads, assignment.compiled
    with _sending(assignment, 0):
        _run_guarded(assignment, lambda: LocalContext(folder, device, threads, compiled=compiled))


@contextmanager
def _sending(assignment: Assignment, rank: int) -> Iterator[None]:
    """Copy the run to object storage, if it is kept there."""
    from assay.storage.run_mirror import sending

    def warn(line: str) -> None:
        Path(assignment.folder).mkdir(parents=True, exist_ok=True)
        with (Path(assignment.folder) / LOG).open("a") as file:
            file.write(f"warning: {line}\n")

    with sending(assignment.store, assignment.attempt, Path(assignment.folder), warn, writer=rank == 0):
        yield


def _run_guarded(assignment: Assignment, make_context: Callable[[], LocalContext], replaced: bool = False) -> None:
    """Train, and record why it failed if it did: this file lets the driver tell a failure from a death.

    Args:
        replaced: whether another worker takes over from one that dies.
    """
    try:
        _train(assignment, make_context())
    except Exception as error:
        if not (replaced and is_death(error)):
            with suppress(OSError):  # the disk may be what failed
                write_json(Path(assignment.folder) / FAILURE, failure_of(error, Path(assignment.folder)))
        raise


def failure_of(error: Exception, folder: Path | None = None) -> dict[str, Any]:
    """Why a training in `folder` failed, for people, with the traceback of the exception being handled."""
    failure = explained(error, folder)
    message = str(failure) if failure is not None else f"{type(error).__name__}: {error}"
    return {"message": redact(message), "expected": failure is not None, "traceback": redact(traceback.format_exc())}


OF_DEATHS = ("gloo", "nccl", "cuda error", "uncorrectable ecc")
OF_FAILURES = ("out of memory", "device-side assert")


def is_death(error: Exception) -> bool:
    """Whether a worker that raises this counts as dead: it lost another one, or its GPU or network broke.

    Memory that does not suffice and assertions of the code come again; they are failures of the training.
    """
    import torch.distributed as distributed

    text = str(error).lower()
    if any(name in text for name in OF_FAILURES):
        return False
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and any(name in text for name in OF_DEATHS)
    )


def _train(assignment: Assignment, context: LocalContext) -> None:
    from assay.train.prepare import prepare
    from assay.workers.arrive import arrive, require_inputs

    here = arrive(assignment, context.log)
    training = prepare(here.config, here.dataset, context)
    require_inputs(assignment, here.config)
    if context.rank == 0:
        note_start(context.folder, assignment.session, training.position.step, assignment.gpu)
    outcome = training.run(assignment.validate_at)
    context.close()
    if context.rank == 0:
        write_json(context.folder / OUTCOME, outcome.plain())
