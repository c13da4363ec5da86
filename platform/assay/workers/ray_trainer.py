"""Ray Train's trainer with its controller in this process. It uses private parts of the pinned Ray.

By default the controller is an actor with more actors around it: processes that import Ray Train before the first
worker starts, nine seconds on two cores. They let workers outlive the process that started them for a moment. Here
that process is the run's one writer, and its workers end with it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import ray
from ray.runtime_context import RuntimeContext
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import worker_group

from assay.workers.ray_private import Bystander

_context: Any = RuntimeContext
_current_actor = vars(RuntimeContext)["current_actor"].fget


def _current_actor_or_none(context: RuntimeContext) -> Any:
    """The actor of this process. The controller hands itself to the workers, which call it for nothing we use."""
    try:
        return _current_actor(context)
    except RuntimeError:
        return None


class AvailableSlots(FixedScalingPolicy):
    """Starts the workers on slots that are there. By default an actor first asks the cluster's autoscaler for them;
    where a cluster grows, `nodes.py` has done so.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing: no request is registered."""

    def _maybe_send_resource_request(self) -> None:
        """Nothing: no request is renewed."""


class Trainer(TorchTrainer):
    """`TorchTrainer`, started in half the time."""

    def _create_default_callbacks(self) -> list[Any]:
        unused: tuple[type, ...] = (DatasetsCallback,)  # of Ray Data
        if ray.get_runtime_context().get_actor_id() is None:  # a driver's slots are freed by Ray itself when it dies
            unused += (PlacementGroupCleanerCallback,)
        callbacks = super()._create_default_callbacks()  # type: ignore[misc] # hidden by Ray's decorator
        return [callback for callback in callbacks if not isinstance(callback, unused)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        vars(worker_group)["SynchronizationActor"] = ray.remote(num_cpus=0)(Bystander)
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # what fails is raised, and reported once
        _context.current_actor = property(_current_actor_or_none)
        parts["scaling_policy"] = AvailableSlots(parts["scaling_policy"].scaling_config)
        controller: Any = TrainController(**parts)
        asyncio.run(controller.run())
        return controller.get_result()
