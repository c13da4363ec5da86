"""Workers fetch their data before they form a process group, in which all would wait for the slowest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.errors import InputError
from assay.workers.ray_trainer import ArriveFirst, Trainer, failure_before_the_group
from assay.workers.worker import arrive_in_ray


class Group:
    """What Ray Train calls a group of workers; notes what is done with it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def execute(self, work: Callable[..., None], *values: Any) -> None:
        self.done.append(work.__name__)  # as Ray's, which a partial lacks
        work(*values)

    def abort(self) -> None:
        self.done.append("abort")


def nowhere(assignment: dict[str, Any]) -> None:
    raise InputError(f"version {assignment['dataset_hash']} is nowhere")


def test_workers_arrive_before_their_group_forms(tmp_path: Path) -> None:
    from ray.train import ScalingConfig
    from ray.train.v2._internal.callbacks.backend_setup import BackendSetupCallback

    first = ArriveFirst(arrive_in_ray, {})
    trainer = Trainer(tmp_path / "note", first, lambda: None, scaling_config=ScalingConfig(num_workers=2))
    kinds = [type(callback) for callback in trainer._create_default_callbacks()]
    assert kinds.index(ArriveFirst) < kinds.index(BackendSetupCallback)


def test_a_group_that_lacks_its_data_keeps_no_core() -> None:
    group = Group()
    with pytest.raises(InputError, match="version a is nowhere"):
        ArriveFirst(nowhere, {"dataset_hash": "a"}).after_worker_group_start(group)
    assert group.done == ["nowhere", "abort"]


def test_what_a_worker_lacked_is_told_from_a_death() -> None:
    from ray.exceptions import RayTaskError
    from ray.train import ControllerError, WorkerGroupError

    lacking = InputError("version a is nowhere, here is b")
    remote = RayTaskError("arrive", "traceback", lacking).as_instanceof_cause()
    assert failure_before_the_group(ControllerError(remote)) is lacking
    assert failure_before_the_group(ControllerError(ValueError())) is None
    assert failure_before_the_group(WorkerGroupError("died", {})) is None
