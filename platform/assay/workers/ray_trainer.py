"""Ray Train's trainer with its controller in this process. It uses private parts of the pinned Ray.

By default the controller is an actor with more actors around it: processes that import Ray Train before the first
worker starts, nine seconds on two cores. They let workers outlive the process that started them for a moment. Here
that process is the run's one writer, and its workers end with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.runtime_context import RuntimeContext
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, worker_group
from ray.util.placement_group import PlacementGroup, remove_placement_group

from assay.errors import AssayError
from assay.files import write_atomic
from assay.workers.ray_private import Bystander

_context: Any = RuntimeContext
_current_actor = vars(RuntimeContext)["current_actor"].fget


def _current_actor_or_none(context: RuntimeContext) -> Any:
    """The actor of this process. The controller hands itself to the workers, which call it for nothing we use."""
    try:
        return _current_actor(context)
    except RuntimeError:
        return None


class ArriveFirst(WorkerGroupCallback):
    """Runs `arrive` with `assignment` in every worker before torch forms their process group: it may take hours, and in
    the group all would wait for the slowest, and no longer than the group's time limit.
    """

    def __init__(self, arrive: Callable[[dict[str, Any]], None], assignment: dict[str, Any]) -> None:
        self.arrive, self.assignment = arrive, assignment

    def after_worker_group_start(self, worker_group: Any) -> None:
        try:
            worker_group.execute(self.arrive, self.assignment)
        except BaseException:
            worker_group.abort()  # Ray forgets a group that fails now, and would keep its cores reserved
            raise


def failure_before_the_group(error: Exception) -> AssayError | None:
    """What a worker raised in its `arrive`; None if the error is another one."""
    cause = getattr(getattr(error, "controller_failure", None), "cause", None)
    return cause if isinstance(cause, AssayError) else None


class AvailableSlots(FixedScalingPolicy):
    """Starts the workers on slots that are there. By default an actor first asks the cluster's autoscaler for them;
    where a cluster grows, `nodes.py` has done so.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing: no request is registered."""

    def _maybe_send_resource_request(self) -> None:
        """Nothing: no request is renewed."""


def noting(file: Path) -> type[WorkerGroup]:
    """A kind of worker group that notes in a file which cores Ray has reserved for its workers, before they start.

    If the actor that leads a training is killed, as the slot of a trial may be, Ray keeps them reserved until the whole
    job ends; the next attempt frees them.
    """

    class Noting(WorkerGroup):
        def _create_placement_group(self, *values: Any, **named: Any) -> Any:
            handle = super()._create_placement_group(*values, **named)
            write_atomic(file, handle.placement_group.id.hex().encode())
            return handle

    return Noting


class ForgetReservation(WorkerGroupCallback):
    """Removes the note once a worker group has ended and has freed its cores."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def after_worker_group_shutdown(self, worker_group_context: Any) -> None:  # noqa: ARG002
        self.file.unlink(missing_ok=True)


def free(file: Path) -> None:
    """Free the cores that a killed attempt had reserved, if it left a note of them."""
    if file.exists():
        with suppress(ValueError):  # a damaged note: they are free once Ray ends
            remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(file.read_text())))
        file.unlink()


class Trainer(TorchTrainer):
    """`TorchTrainer`, started in half the time. `reservation` is the file that notes the cores reserved for it."""

    def __init__(self, reservation: Path, first: ArriveFirst, *values: Any, **named: Any) -> None:
        super().__init__(*values, **named)
        self.reservation, self.first = reservation, first
        free(reservation)

    def _create_default_callbacks(self) -> list[Any]:
        unused = (DatasetsCallback, PlacementGroupCleanerCallback)  # Ray Data's, and one that needs Ray's dashboard
        callbacks = super()._create_default_callbacks()  # type: ignore[misc] # hidden by Ray's decorator
        kept = [callback for callback in callbacks if not isinstance(callback, unused)]
        return [self.first, *kept, ForgetReservation(self.reservation)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        vars(worker_group)["SynchronizationActor"] = ray.remote(num_cpus=0)(Bystander)
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # what fails is raised, and reported once
        _context.current_actor = property(_current_actor_or_none)
        parts["scaling_policy"] = AvailableSlots(parts["scaling_policy"].scaling_config)
        kind = type("Controller", (TrainController,), {"worker_group_cls": noting(self.reservation)})
        controller: Any = kind(**parts)
        asyncio.run(controller.run())
        return controller.get_result()
