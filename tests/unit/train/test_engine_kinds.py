"""What single kinds of optimizer and of precision need of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from assay.config.experiment import OptimizerConfig, TrainConfig
from assay.errors import InputError, WorkError
from assay.train.checkpoint import Checkpoints
from assay.train.engine import StepEngine, make_optimizer
from assay.workers.plan import Slots, plan

CPU = torch.device("cpu")


class Valley(nn.Module):
    """Rosenbrock's function of two parameters; its floor is at (1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor([-1.0, 1.5], dtype=torch.float64))

    def forward(self) -> Tensor:
        x, y = self.at
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def descend(valley: Valley, engine: StepEngine, first: int, end: int) -> None:
    (optimizer,) = engine.optimizers.values()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = valley()
        loss.backward()
        return loss

    for step in range(first, end):
        engine.begin(step)
        assert engine.progress == step / 4
        assert engine.step(optimizer, closure)
        engine.end()


def started() -> tuple[Valley, StepEngine]:
    valley, config = Valley(), OptimizerConfig(name="lbfgs", lr=1.0)
    return valley, StepEngine({"at": make_optimizer(valley.parameters(), config)}, TrainConfig(), config, CPU, 4)


def test_lbfgs_evaluates_several_times_a_step_and_resumes(tmp_path: Path) -> None:
    valley, engine = started()
    descend(valley, engine, 0, 4)
    assert valley().item() < 1e-6
    half, engine = started()
    descend(half, engine, 0, 2)
    kept = Checkpoints(tmp_path, print)
    kept.save(2, {"valley": half.state_dict(), "engine": engine.state_dict()})
    again, engine = started()
    _, state = kept.load() or (0, {})
    again.load_state_dict(state["valley"])
    engine.load_state_dict(state["engine"])
    descend(again, engine, 2, 4)
    assert torch.equal(again.at, valley.at)


def test_an_overflow_of_half_precision_is_seen_and_ends_the_run_where_no_scale_helps() -> None:
    model, config = nn.Linear(1, 1), OptimizerConfig(lr=0.1)
    engine = StepEngine(
        {"m": make_optimizer(model.parameters(), config)}, TrainConfig(precision="fp16"), config, CPU, 40
    )
    assert engine.loss_scale() == {"loss_scale": 65536}
    before = model.weight.clone()
    for step in range(17):
        engine.begin(step)
        engine.optimize(model(torch.full((1, 1), float("inf"))).sum())
        engine.end()
    assert torch.equal(model.weight, before), "steps that overflow are left out"
    with pytest.raises(WorkError, match="fp16 overflows even without a loss scale: use bf16 or fp32"):
        engine.loss_scale()


def test_bf16_is_refused_where_the_gpu_has_none() -> None:
    old = Slots(4, 1, "P100", bf16=False)
    with pytest.raises(InputError, match=r"train\.precision: P100 does not support bf16; use fp16 or fp32"):
        plan(TrainConfig(precision="bf16"), old)
    assert plan(TrainConfig(precision="bf16", device="cpu"), old).device == "cpu"


def test_compilation_needs_a_compiler_and_is_left_out_without() -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert not plan(TrainConfig(compile=True), Slots(4, 0)).compiled
    assert not plan(TrainConfig(), Slots(4, 0)).compiled
