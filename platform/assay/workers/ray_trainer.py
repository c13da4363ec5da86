"""Ray Train's trainer with its controller in this process. It uses private parts of the pinned Ray.

By default the controller is an actor with two more actors around it: processes that import Ray Train before the first
worker starts, nine seconds on two cores. They let workers outlive the process that started them for a moment. Here
that process is the run's one writer, and its workers end with it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ray.runtime_context import RuntimeContext
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController

_context: Any = RuntimeContext
_current_actor = vars(RuntimeContext)["current_actor"].fget


def _current_actor_or_none(context: RuntimeContext) -> Any:
    """The actor of this process. The controller hands itself to the workers, which call it for nothing we use."""
    try:
        return _current_actor(context)
    except RuntimeError:
        return None


class Trainer(TorchTrainer):
    """`TorchTrainer`, started in half the time."""

    def _create_default_callbacks(self) -> list[Any]:
        unused = (DatasetsCallback, PlacementGroupCleanerCallback)  # Ray Data's, and the one that watches the actor
        callbacks = super()._create_default_callbacks()  # type: ignore[misc] # hidden by Ray's decorator
        return [callback for callback in callbacks if not isinstance(callback, unused)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # what fails is raised, and told once
        _context.current_actor = property(_current_actor_or_none)
        controller: Any = TrainController(**parts)
        asyncio.run(controller.run())
        return controller.get_result()
