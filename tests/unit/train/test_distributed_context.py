"""Two real processes: what they share is what one process would have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
from torch import Tensor, nn

from assay.train.distributed_context import DistributedContext

REPOSITORY = Path(__file__).parents[3]


class Activated(nn.BatchNorm1d):
    """As timm has it: an activation inside the normalization."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), Activated(4), nn.Linear(4, 1)).double()


def samples() -> Tensor:
    torch.manual_seed(1)
    return 5 + torch.randn(8, 3, dtype=torch.float64)


def outcome(module: nn.Module, wrapped: nn.Module, x: Tensor) -> dict[str, Any]:
    """Gradients of a loss with a penalty on the slope at the inputs, and the running statistics."""
    x = x.clone().requires_grad_(True)
    out = wrapped(x)
    (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    (out.square().mean() + slope.square().sum(1).mean()).backward()
    gradients = {name: parameter.grad.tolist() for name, parameter in module.named_parameters()}  # type: ignore[union-attr]
    return {**gradients, **{name: buffer.tolist() for name, buffer in module.named_buffers()}}


def resumed(folder: Path, rank: int, case: str) -> int | None:
    """Where two workers with a folder each go on, if worker 1's newest checkpoint is so."""
    context = DistributedContext(folder / str(rank), torch.device("cpu"), 1, rank, 2)
    for step in (3, 5):
        context.checkpoints.save(step, {"weights": {"w": torch.tensor(float(step))}})
    if case == "damaged" and rank == 1:
        weights = context.checkpoints.folder / "step-0000000005/weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    if case == "without" and rank == 1:
        shutil.rmtree(context.checkpoints.folder)
    step, state = context.checkpoints.load(context) or (None, {})
    assert step is None or state["weights"]["w"].item() == step
    return step


def main(rank: int, folder: Path) -> None:
    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(folder / "store"), 2), rank=rank, world_size=2
    )
    context = DistributedContext(folder, torch.device("cpu"), 1, rank, 2)
    module = network()
    found = outcome(module, context.wrap(module), samples()[rank::2])
    found["gathered"] = context.gather(torch.full((rank, 2), float(rank))).tolist()
    found["sum"] = context.all_reduce(torch.tensor(rank + 1.0)).item()
    module.eval()
    found["eval"] = module(samples()).tolist()
    found["resumed"] = [resumed(folder / case, rank, case) for case in ("whole", "damaged", "without")]
    found["compiler"] = "torch._dynamo" in sys.modules
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()  # its threads would abort a process that ends before them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def both(folder: Path) -> list[dict[str, Any]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "platform"), str(REPOSITORY)))}
    command = [sys.executable, __file__]
    processes = [subprocess.Popen([*command, str(rank), str(folder)], env=environment) for rank in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_batch_normalization_sees_the_whole_batch(both: list[dict[str, Any]]) -> None:
    module = network()
    alone = outcome(module, module, samples())
    for name, value in alone.items():
        for worker in both:
            torch.testing.assert_close(torch.tensor(worker[name]), torch.tensor(value), rtol=1e-6, atol=1e-9)
    module.eval()
    for worker in both:
        torch.testing.assert_close(torch.tensor(worker["eval"]), torch.tensor(module(samples()).tolist()))


def test_rows_are_joined_and_sums_are_everywhere(both: list[dict[str, Any]]) -> None:
    for worker in both:
        assert worker["gathered"] == [[1.0, 1.0]], "rank 0 has no rows, rank 1 has one"
        assert worker["sum"] == 3.0


def test_workers_begin_with_the_newest_checkpoint_that_all_have_whole(both: list[dict[str, Any]], folder: Path) -> None:
    for worker in both:
        assert worker["resumed"] == [5, 3, None]
    told = {case: (folder / case / "0/told.log").read_text() for case in ("damaged", "without")}
    assert told["damaged"] == (
        "warning: no whole checkpoint of step 5 on workers [1]; using the checkpoint before it\n"
    )
    assert told["without"].splitlines()[-1] == (
        "warning: no checkpoint is whole on every worker: the training begins anew"
    )


def test_no_worker_imports_the_compiler(both: list[dict[str, Any]]) -> None:
    assert [worker["compiler"] for worker in both] == [False, False]


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
