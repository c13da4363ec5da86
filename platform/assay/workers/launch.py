"""Runs the workers of a training, here or on Ray, while the main thread handles signals and progress."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from assay.errors import AssayError, WorkError, last_line
from assay.log import Log
from assay.settings import Settings
from assay.signals import handled_by
from assay.storage.attempts import attempt_name
from assay.storage.run_mirror import Receiver, receiving
from assay.train.folder import FAILURE, OUTCOME, STOP
from assay.workers import nodes
from assay.workers.assignment import Assignment
from assay.workers.plan import Plan
from assay.workers.ray_session import ray_running
from assay.workers.worker import work_here, work_in_ray

ATTEMPTS = 3  # of a training whose workers die; one that fails is not tried again
TICK_SECONDS = 0.2
RESERVATION = "reservation"
"""A file of a run's folder while its workers are on Ray: the cores that are reserved for them."""


def launch(
    assignment: Assignment, plan: Plan, settings: Settings, tick: Callable[[], None], log: Log
) -> dict[str, Any]:
    """Train to the end or to a stop, calling `tick` several times a second.

    Returns:
        The outcome that rank 0 wrote.

    Raises:
        WorkError: the training failed, or its workers died too often.
    """
    folder = Path(assignment.folder)
    forget_end(folder)
    if plan.workers == 0:
        own = replace(assignment, attempt=attempt_name(assignment.attempt, 1))
        run_watched(lambda: work_here(own), folder, tick, log)
    else:
        with ray_running(settings, log), receiving(assignment.store, folder, log) as receiver:
            if settings.ray_address:
                nodes.wait_for_free(plan, None if settings.wait else nodes.SETTLE_SECONDS, log)
            log(f"starting {plan.workers} workers on {plan.device}, {plan.threads} threads each")
            run_watched(lambda: train_on_ray(assignment, plan, settings.runs, log, receiver), folder, tick, log)
    return _read(folder / OUTCOME)


def forget_end(folder: Path) -> None:
    """Remove what an earlier end left, and the request to stop."""
    for name in (STOP, OUTCOME, FAILURE):
        (folder / name).unlink(missing_ok=True)


def train_on_ray(assignment: Assignment, plan: Plan, storage: Path, log: Log, receiver: Receiver | None = None) -> None:
    """Train on Ray's workers to the end or to a stop, again from the last checkpoint if workers die.

    Raises:
        WorkError: the training failed, or its workers died too often.
    """
    folder = Path(assignment.folder)
    for attempt in range(1, ATTEMPTS + 1):
        own = replace(assignment, attempt=attempt_name(assignment.attempt, attempt))
        if receiver is not None:
            receiver.follow(own.attempt)
        try:
            return _fit(own, plan, storage)
        except Exception as error:
            if receiver is not None:
                receiver.catch_up()
            if (folder / FAILURE).exists():
                raise
            if attempt == ATTEMPTS:
                raise WorkError(f"the workers died {ATTEMPTS} times; the last time: {last_line(error)}") from error
            log(f"a worker died ({last_line(error)}); continuing from the last checkpoint")
            if assignment.project:  # on a cluster, where its node may have died with it
                nodes.wait_for_free(plan, nodes.NODE_SECONDS, log)
    raise AssertionError


def _fit(assignment: Assignment, plan: Plan, storage: Path) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from assay.workers.ray_trainer import Trainer

    resources: dict[str, float] = {"CPU": plan.threads, **({"GPU": 1} if plan.gpu else {})}
    trainer = Trainer(
        Path(assignment.folder) / RESERVATION,
        work_in_ray,
        train_loop_config=assignment.plain(),
        torch_config=TorchConfig(backend="nccl" if plan.gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=plan.workers, use_gpu=plan.gpu, resources_per_worker=resources),
        run_config=RunConfig(name=assignment.run_id, storage_path=str(storage)),
    )
    trainer.fit()


def run_watched(target: Callable[[], None], folder: Path, tick: Callable[[], None], log: Log) -> None:
    """Run the target in a thread; the first Ctrl-C or SIGTERM requests a stop, the second quits at once."""
    failure: list[BaseException] = []

    def body() -> None:
        try:
            target()
        except BaseException as error:  # handed to the main thread, which raises it
            failure.append(error)

    thread = threading.Thread(target=body, name="training", daemon=True)
    with _signals(folder, log):
        thread.start()
        while thread.is_alive():
            thread.join(TICK_SECONDS)
            tick()
    tick()
    if failure:
        raise_recorded(failure[0], folder)


def raise_recorded(error: BaseException, folder: Path) -> None:
    """Raise the failure that a worker recorded in the folder; without one (a worker died) the error itself."""
    if isinstance(error, AssayError):
        raise error
    if (folder / FAILURE).exists():
        failure = _read(folder / FAILURE)
        more = "" if failure["expected"] else f" (the traceback is in {folder / FAILURE})"
        raise WorkError(f"{failure['message']}{more}") from error
    raise error


@contextmanager
def _signals(folder: Path, log: Log) -> Iterator[None]:
    def handle(number: int, _frame: object) -> None:
        if (folder / STOP).exists():
            raise KeyboardInterrupt
        (folder / STOP).touch()
        log(f"{signal.Signals(number).name}: saving a checkpoint and stopping; repeat to quit at once")

    with handled_by(handle):
        yield


def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text())
    return data
