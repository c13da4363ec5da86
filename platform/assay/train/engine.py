"""The one place for mixed precision, clipping, accumulation and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from assay.config.experiment import OptimizerConfig, TrainConfig
from assay.errors import WorkError
from assay.train.uncompiled import uncompiled_optimizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], config: OptimizerConfig, lr: float | None = None
) -> torch.optim.Optimizer:
    """The configured optimizer; `lr` replaces the configured rate for parts that a task trains faster or slower.

    `parameters` may be groups, each with its own rate. L-BFGS (one group only) takes 20 iterations a step.
    """
    rate = config.lr if lr is None else lr
    if config.name == "lbfgs":
        return uncompiled_optimizer(torch.optim.LBFGS)(
            parameters, lr=rate, history_size=20, line_search_fn="strong_wolfe"
        )
    if config.name == "sgd":
        return uncompiled_optimizer(torch.optim.SGD)(
            parameters,
            lr=rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return uncompiled_optimizer(kind)(parameters, lr=rate, betas=config.betas, weight_decay=config.weight_decay)


def schedule(config: OptimizerConfig, step: int, total: int) -> float:
    """The factor on the learning rate at a step: a linear warm-up, then constant or half a cosine to zero."""
    warmup = config.warmup * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


class StepEngine:
    """The `Engine` of a run. Stateless except for the loss scale of fp16: the rate is a function of the step."""

    def __init__(
        self,
        optimizers: Mapping[str, torch.optim.Optimizer],
        train: TrainConfig,
        optimizer: OptimizerConfig,
        device: torch.device,
        total_steps: int,
    ) -> None:
        self.optimizers = optimizers
        self.train = train
        self.optimizer = optimizer
        self.device = device
        self.total_steps = total_steps
        self.scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "fp16")
        self._rates = {name: [group["lr"] for group in o.param_groups] for name, o in optimizers.items()}
        self._boundary = True
        self._stepped = False
        self.progress = 0.0

    def begin(self, step: int) -> None:
        """Set the learning rates of this step, and whether it ends an accumulation."""
        self.progress = step / self.total_steps
        factor = schedule(self.optimizer, step, self.total_steps)
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self._rates[name], strict=True):
                group["lr"] = rate * factor
        self._boundary = (step + 1) % self.train.accumulate == 0 or step + 1 == self.total_steps

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(
            self.device.type, dtype=DTYPES[self.train.precision], enabled=self.train.precision != "fp32"
        )

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss / self.train.accumulate).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor] | None = None) -> bool:
        if closure is not None:
            optimizer.step(closure)  # type: ignore[arg-type] # the stubs have a float where torch takes a tensor
            return True
        if not self._boundary:
            return False
        if self.train.clip is not None:
            self.scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.train.clip)
        self.scaler.step(optimizer)
        self._stepped = True
        optimizer.zero_grad(set_to_none=True)
        return True

    def end(self) -> None:
        """Close the step: the loss scale moves once, after all optimizers have used it."""
        if self._stepped:
            self.scaler.update()
            self._stepped = False

    def loss_scale(self) -> dict[str, float]:
        """The factor of fp16 on losses; each step that overflows halves it and is skipped. Empty without fp16.

        Raises:
            WorkError: the scale is below 1, so the overflow does not come from it.
        """
        if not self.scaler.is_enabled():
            return {}
        scale: float = self.scaler.get_scale()
        if scale < 1:
            raise WorkError("train.precision: fp16 overflows even without a loss scale: use bf16 or fp32")
        return {"loss_scale": scale}

    def optimize(self, loss: Tensor) -> None:
        (optimizer,) = self.optimizers.values()
        self.backward(loss)
        self.step(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Optimizers and loss scale, and the gradients of an unfinished accumulation."""
        return {
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "gradients": {
                name: [p.grad for group in optimizer.param_groups for p in group["params"]]
                for name, optimizer in self.optimizers.items()
            }
            if not self._boundary
            else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            groups = optimizer.state_dict()["param_groups"]  # rates are the config's: an heir may have others
            optimizer.load_state_dict({"state": state["optimizers"][name]["state"], "param_groups": groups})
            gradients = state["gradients"].get(name, [])
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for parameter, gradient in zip(parameters, gradients, strict=False):
                parameter.grad = None if gradient is None else gradient.to(parameter.device)
        self.scaler.load_state_dict(state["scaler"])
