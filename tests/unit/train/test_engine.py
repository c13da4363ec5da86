"""Accumulation, clipping, the rate and the state of the optimizers, against plain torch."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay.config.experiment import OptimizerConfig, TrainConfig
from assay.train.checkpoint import Checkpoints, weights_sha256
from assay.train.engine import StepEngine, make_optimizer, schedule

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def batch(step: int, size: int = 8) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, 4, generator=torch.Generator().manual_seed(step))
    return x, x.sum(1, keepdim=True)


def engine_for(model: nn.Module, total: int, optimizer: OptimizerConfig | None = None, **train: Any) -> StepEngine:
    config = optimizer or OptimizerConfig(lr=0.1)
    optimizers = {"model": make_optimizer(model.parameters(), config)}
    return StepEngine(optimizers, TrainConfig.model_validate(train), config, CPU, total)


def loss_of(model: nn.Module, step: int) -> Tensor:
    x, y = batch(step)
    return ((model(x) - y) ** 2).mean()


def run(engine: StepEngine, model: nn.Module, first: int, end: int) -> None:
    for step in range(first, end):
        engine.begin(step)
        with engine.autocast():
            loss = loss_of(model, step)
        engine.optimize(loss)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def close(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(one, other, strict=True))


def test_accumulated_batches_make_one_big_batch() -> None:
    model, reference = network(), network()
    # AdamW would not see a wrong scale of the gradient
    run(engine_for(model, 6, OptimizerConfig(name="sgd", lr=0.1, momentum=0.0), accumulate=3), model, 0, 6)
    plain = torch.optim.SGD(reference.parameters(), lr=0.1)
    for start in (0, 3):
        x, y = (torch.cat(parts) for parts in zip(*(batch(start + i) for i in range(3)), strict=True))
        plain.zero_grad()
        ((reference(x) - y) ** 2).mean().backward()
        plain.step()
    assert close(weights(model), weights(reference))


def test_steps_happen_at_the_end_of_each_accumulation_and_at_the_very_end() -> None:
    model = network()
    engine = engine_for(model, 8, accumulate=3)
    moved = []
    for step in range(8):
        before = weights(model)
        run(engine, model, step, step + 1)
        moved.append(not all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True)))
    assert moved == [False, False, True, False, False, True, False, True]
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("clip", [0.01, 1e6])
def test_the_gradient_is_clipped_by_its_norm(clip: float) -> None:
    model = network()
    engine = engine_for(model, 1, OptimizerConfig(name="sgd", lr=1.0, momentum=0.0), clip=clip)
    before = weights(model)
    gradients = torch.autograd.grad(loss_of(model, 0), list(model.parameters()))
    run(engine, model, 0, 1)
    moved = math.sqrt(sum(((a - b) ** 2).sum().item() for a, b in zip(before, weights(model), strict=True)))
    norm = math.sqrt(sum((g**2).sum().item() for g in gradients))
    assert moved == pytest.approx(min(norm, clip), rel=1e-3)


def test_clipping_comes_after_accumulation() -> None:
    model = network()
    engine = engine_for(model, 2, OptimizerConfig(name="sgd", lr=1.0, momentum=0.0), clip=0.01, accumulate=2)
    before = weights(model)
    run(engine, model, 0, 2)
    moved = math.sqrt(sum(((a - b) ** 2).sum().item() for a, b in zip(before, weights(model), strict=True)))
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_bf16_computes_in_bf16_and_keeps_fp32_weights() -> None:
    model = network()
    engine = engine_for(model, 1, precision="bf16")
    engine.begin(0)
    with engine.autocast():
        assert model(batch(0)[0]).dtype == torch.bfloat16
    run(engine, model, 0, 1)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with engine_for(model, 1).autocast():
        assert model(batch(0)[0]).dtype == torch.float32


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (OptimizerConfig(), [1.0] * 5),
        (OptimizerConfig(warmup=0.4), [1 / 3, 2 / 3, 1, 1, 1]),
        (OptimizerConfig(schedule="cosine"), [0.5 * (1 + math.cos(math.pi * s / 5)) for s in range(5)]),
        (OptimizerConfig(schedule="cosine", warmup=0.2), [0.5, 1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
    ],
)
def test_the_schedule(config: OptimizerConfig, expected: list[float]) -> None:
    assert [schedule(config, step, 5) for step in range(5)] == pytest.approx(expected)


@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_the_schedule_stays_between_none_and_all(total: int) -> None:
    for warmup in (0.0, 0.1, 0.99):
        factors = [schedule(OptimizerConfig(schedule="cosine", warmup=warmup), s, total) for s in range(total)]
        assert all(0 < f <= 1 for f in factors)
        peak = factors.index(max(factors))
        assert factors == sorted(factors[:peak]) + sorted(factors[peak:], reverse=True)


def test_the_rate_is_a_function_of_the_step_and_of_each_group() -> None:
    model = network()
    config = OptimizerConfig(lr=0.1, schedule="cosine", warmup=0.1)
    slow, fast = make_optimizer(model[0].parameters(), config, lr=0.01), make_optimizer(model[2].parameters(), config)
    engine = StepEngine({"slow": slow, "fast": fast}, TrainConfig(), config, CPU, 20)
    for step in (7, 0, 19, 7):
        engine.begin(step)
        factor = schedule(config, step, 20)
        assert (slow.param_groups[0]["lr"], fast.param_groups[0]["lr"]) == (0.01 * factor, 0.1 * factor)


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_the_optimizer_is_the_configured_one(name: Any, kind: type) -> None:
    config = OptimizerConfig(name=name, lr=0.3, weight_decay=0.2, momentum=0.7, betas=(0.5, 0.6))
    made = make_optimizer(network().parameters(), config)
    assert type(made).__bases__ == (kind,)  # its step is not torch's wrapped one; see `train/uncompiled.py`
    (group,) = made.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.2)
    assert group["momentum"] == 0.7 if name == "sgd" else group["betas"] == (0.5, 0.6)


@pytest.mark.parametrize("stop", [0, 1, 4, 5, 7])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_a_run_goes_on_from_a_checkpoint_with_the_same_bits(
    tmp_path: Path, name: Any, accumulate: int, stop: int
) -> None:
    config = OptimizerConfig(name=name, lr=0.05, weight_decay=0.01, schedule="cosine", warmup=0.2)

    def fresh() -> tuple[nn.Module, StepEngine]:
        model = network()
        return model, engine_for(model, 8, config, accumulate=accumulate, clip=1.0)

    whole, engine = fresh()
    run(engine, whole, 0, 8)
    model, engine = fresh()
    run(engine, model, 0, stop)
    kept = Checkpoints(tmp_path, print)
    kept.save(stop, {"weights": model.state_dict(), "engine": engine.state_dict()})
    run(engine, model, stop, 8)  # what is saved is not what goes on changing
    model, engine = fresh()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    _, state = kept.load() or (0, {})
    model.load_state_dict(state["weights"])
    engine.load_state_dict(state["engine"])
    run(engine, model, stop, 8)
    assert weights_sha256(model.state_dict()) == weights_sha256(whole.state_dict())


def two_players() -> tuple[nn.Module, nn.Module, StepEngine]:
    one, other = network(), network()
    config = OptimizerConfig(lr=0.05)
    optimizers = {"one": make_optimizer(one.parameters(), config), "other": make_optimizer(other.parameters(), config)}
    return one, other, StepEngine(optimizers, TrainConfig(accumulate=2), config, CPU, 7)


def play(one: nn.Module, other: nn.Module, engine: StepEngine, first: int, end: int) -> None:
    for step in range(first, end):
        engine.begin(step)
        for model, name in ((one, "one"), (other, "other")):
            engine.backward(loss_of(model, step) * (1 if name == "one" else -0.01))
            engine.step(engine.optimizers[name])


def test_two_optimizers_step_by_themselves_and_resume(tmp_path: Path) -> None:
    one, other, engine = two_players()
    play(one, other, engine, 0, 7)
    expected = copy.deepcopy((one.state_dict(), other.state_dict()))
    assert not close(weights(one), weights(other))
    one, other, engine = two_players()
    play(one, other, engine, 0, 3)
    kept = Checkpoints(tmp_path, print)
    kept.save(3, {"one": one.state_dict(), "other": other.state_dict(), "engine": engine.state_dict()})
    one, other, engine = two_players()
    _, state = kept.load() or (0, {})
    one.load_state_dict(state["one"])
    other.load_state_dict(state["other"])
    engine.load_state_dict(state["engine"])
    play(one, other, engine, 3, 7)
    for model, wanted in zip((one, other), expected, strict=True):
        assert weights_sha256(model.state_dict()) == weights_sha256(wanted)


def test_the_one_loss_case_is_for_one_optimizer() -> None:
    one, _, engine = two_players()
    engine.begin(0)
    with pytest.raises(ValueError, match="too many values"):
        engine.optimize(loss_of(one, 0))
