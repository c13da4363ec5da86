"""What a worker does with an error: a death that a new worker mends, or a failure of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from assay.config.experiment import ExperimentConfig
from assay.errors import WorkError
from assay.inputs import Inputs
from assay.train import prepare as preparing
from assay.train.context import LocalContext
from assay.train.folder import FAILURE
from assay.workers import arrive as arriving
from assay.workers import worker
from assay.workers.arrive import Arrival
from assay.workers.assignment import Assignment

CUDA = "CUDA error: {}\nCUDA kernel errors might be asynchronously reported at some other API call"


@pytest.mark.parametrize(
    ("error", "death"),
    [
        (RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), True),
        (torch.distributed.DistBackendError("NCCL communicator was aborted on rank 0."), True),
        (RuntimeError("Watchdog caught collective operation timeout: NCCL WorkNCCL(SeqNum=7) ran for 600 s"), True),
        (RuntimeError(CUDA.format("uncorrectable ECC error encountered")), True),
        (RuntimeError(CUDA.format("unspecified launch failure")), True),
        (RuntimeError(CUDA.format("device-side assert triggered")), False),
        (RuntimeError(CUDA.format("out of memory")), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), False),
        (AssertionError("NCCL"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("nccl"), False),
    ],
)
def test_what_a_new_worker_can_mend_is_a_death(
    error: Exception, death: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(worker, "_train", fail)
    run = Assignment("r1", {}, "", "", str(tmp_path), 1, False, {})
    with pytest.raises(type(error)):
        worker._run_guarded(run, lambda: None, replaced=True)  # type: ignore[arg-type,return-value]
    assert (tmp_path / FAILURE).exists() is not death
    with pytest.raises(type(error)):
        worker._run_guarded(run, lambda: None)  # type: ignore[arg-type,return-value]
    assert (tmp_path / FAILURE).exists(), "where no worker takes over, the user is told"


def test_what_changes_while_workers_start_stops_them_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(b"as the run is recorded")
    task = {"name": "classification", "architecture": "timm:resnet18", "weights": str(weights)}
    config = ExperimentConfig.model_validate({"task": task, "data": "pets"})
    recorded = Inputs.here(tmp_path, "classification", config.task.files).plain()

    def change(*_: Any) -> None:
        weights.write_bytes(b"as it is read")

    monkeypatch.setattr(arriving, "arrive", lambda *_: Arrival(config, None))  # type: ignore[arg-type]
    monkeypatch.setattr(preparing, "prepare", change)
    run = Assignment("r1", {}, str(tmp_path), "", str(tmp_path), 1, False, recorded)
    with pytest.raises(WorkError, match="^a file that the task names is not what the run is recorded with"):
        worker._train(run, LocalContext(tmp_path, torch.device("cpu"), 1))

    monkeypatch.setattr(preparing, "prepare", lambda *_: None)
    other = recorded | {"the training code": "0" * 64}
    run = Assignment("r1", {}, str(tmp_path), "", str(tmp_path), 1, False, other)
    with pytest.raises(WorkError, match="^the training code and a file that the task names is not"):
        worker._train(run, LocalContext(tmp_path, torch.device("cpu"), 1))
