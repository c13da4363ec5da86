"""Runs the workers of a training, here or on Ray, while the main thread handles signals and progress."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from assay.errors import AssayError, last_line
from assay.files import read_json
from assay.log import Log, counted
from assay.settings import Settings
from assay.signals import ask_to_end, handled_by, quit_at_once
from assay.storage.attempts import attempt_name
from assay.storage.run_mirror import Receiver, receiving
from assay.train.folder import CHECKPOINTS, FAILURE, OUTCOME, OUTCOME_NEEDS, SPOOL, STOP
from assay.workers import nodes
from assay.workers.assignment import Assignment
from assay.workers.deaths import Deaths
from assay.workers.on_ray import AGAIN, Watched, on_ray
from assay.workers.plan import Plan
from assay.workers.ray_private import ray_alive
from assay.workers.ray_session import RayDied
from assay.workers.worker import arrive_in_ray, work_here, work_in_ray

RESERVATION = "reservation"
"""A file of a run's folder while its workers are on Ray: the cores that are reserved for them."""


def launch(
    assignment: Assignment, plan: Plan, settings: Settings, tick: Callable[[], None], log: Log
) -> dict[str, Any]:
    """Train to the end or to a stop, calling `tick` several times a second.

    Returns:
        The outcome that rank 0 wrote.

    Raises:
        WorkError: the training failed, or what it ran on died too often.
        Interrupted: a stop was requested while no worker ran, so that nothing had to be saved.
    """
    folder = Path(assignment.folder)
    forget_end(folder)
    with stopping_on_signals(folder, log):
        if plan.workers == 0:
            own = replace(assignment, attempt=attempt_name(assignment.attempt, 1))
            Watched(lambda: work_here(own)).run(folder, tick)
        else:
            _launch_on_ray(assignment, plan, settings, tick, log)
    return read_json(folder / OUTCOME, AGAIN, OUTCOME_NEEDS)


def _launch_on_ray(assignment: Assignment, plan: Plan, settings: Settings, tick: Callable[[], None], log: Log) -> None:
    folder = Path(assignment.folder)
    deaths = deaths_of(folder)

    with receiving(assignment.store, folder, log) as receiver:

        def body(over: threading.Event) -> None:
            if settings.ray_address:
                seconds = None if settings.wait else nodes.SETTLE_SECONDS
                nodes.wait_for_free(plan, seconds, log, deaths.stopped)
            log(f"starting {counted(plan.workers, 'worker')} on {plan.device}, {counted(plan.threads, 'thread')} each")
            train_on_ray(assignment, plan, settings.runs, log, deaths, over, receiver)

        on_ray(lambda over: nullcontext(partial(body, over)), settings, folder, tick, deaths, log)


def forget_end(folder: Path) -> None:
    """Remove what an earlier end left, and the request to stop."""
    for name in (STOP, OUTCOME, FAILURE):
        (folder / name).unlink(missing_ok=True)


def deaths_of(folder: Path) -> Deaths:
    """A count of the deaths of the training in a folder: its checkpoints and its metrics are its progress."""

    def reached() -> tuple[int, int]:
        spool, names = folder / SPOOL, [path.name for path in (folder / CHECKPOINTS).glob("step-*")]
        step = max((int(name.removeprefix("step-")) for name in names), default=0)
        return step, spool.stat().st_size if spool.exists() else 0

    return Deaths(reached, (folder / STOP).exists)


def train_on_ray(
    assignment: Assignment,
    plan: Plan,
    storage: Path,
    log: Log,
    deaths: Deaths,
    over: threading.Event,
    receiver: Receiver | None = None,
) -> None:
    """Train on Ray's workers to the end or to a stop, again from the last checkpoint if workers die.

    Args:
        over: set once this Ray is to be used no more.

    Raises:
        WorkError: the training failed, or its workers died too often.
        RayDied: the servers of our own Ray are gone.
        Interrupted: a stop was requested between two attempts.
    """
    folder = Path(assignment.folder)
    while True:
        own = replace(assignment, attempt=attempt_name(assignment.attempt, deaths.total + 1))
        if receiver is not None:
            receiver.follow(own.attempt)
        try:
            return _fit(own, plan, storage)
        except AssayError:  # no worker died: the data are nowhere
            raise
        except Exception as error:
            if over.is_set():
                raise RayDied("its servers are gone") from error
            if receiver is not None:
                receiver.catch_up()
            if (folder / FAILURE).exists():
                raise
            if not ray_alive():
                raise RayDied("its servers are gone") from error
            deaths.add("a worker", last_line(error), log)
            if assignment.cluster:  # its node may have died with it
                nodes.wait_for_free(plan, nodes.NODE_SECONDS, log, deaths.stopped)


def _fit(assignment: Assignment, plan: Plan, storage: Path) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from assay.workers.ray_trainer import ArriveFirst, Trainer, failure_before_the_group

    # By default it waits for slots forever. The types are those of Ray Train's first version.
    once = FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)  # type: ignore[call-arg]
    resources: dict[str, float] = {"CPU": plan.threads, **({"GPU": 1} if plan.gpu else {})}
    trainer = Trainer(
        Path(assignment.folder) / RESERVATION,
        ArriveFirst(arrive_in_ray, assignment.plain()),
        work_in_ray,
        train_loop_config=assignment.plain(),
        torch_config=TorchConfig(backend="nccl" if plan.gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=plan.workers, use_gpu=plan.gpu, resources_per_worker=resources),
        run_config=RunConfig(name=assignment.run_id, storage_path=str(storage), failure_config=once),
    )
    try:
        trainer.fit()
    except Exception as error:
        if (failure := failure_before_the_group(error)) is not None:
            raise failure from None
        raise


@contextmanager
def stopping_on_signals(folder: Path, log: Log) -> Iterator[None]:
    """Let the first Ctrl-C, SIGTERM or SIGHUP request a stop, and the second quit at once."""

    def handle(number: int, _frame: object) -> None:
        if (folder / STOP).exists():
            quit_at_once()
        ask_to_end()
        (folder / STOP).touch()
        log(f"{signal.Signals(number).name}: saving a checkpoint and stopping; repeat to quit at once")

    with handled_by(handle):
        yield
