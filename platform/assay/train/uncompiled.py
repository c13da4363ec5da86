"""Parts of torch without its compiler, whose import takes two seconds of the start of each training.

torch imports it to keep it from tracing optimizers and the outside of parallel networks. Nothing here traces either:
`train.compile` compiles the networks themselves, and then the compiler is imported anyway.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@cache
def uncompiled_optimizer(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The optimizer without what keeps the compiler away from it."""
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        _leave_alone(getattr(torch.optim.Optimizer, name))
    return type(kind.__name__, (kind,), {"step": torch.no_grad()(inspect.unwrap(kind.step))})


def uncompiled_parallel(module: nn.Module, **options: Any) -> DistributedDataParallel:
    """A `DistributedDataParallel`, which asks the compiler only for an option that has not been changed."""
    _leave_alone(DistributedDataParallel._inside_ddp_forward)
    with _default_options():
        return DistributedDataParallel(module, **options)


def _leave_alone(function: Callable[..., Any]) -> None:
    """Call a function of torch as it is, not through the compiler's wrapper for what must not be traced."""
    plain = inspect.unwrap(function)
    plain.__dict__.setdefault("__dynamo_disable", plain)


@contextmanager
def _default_options() -> Iterator[None]:
    """Answer for the compiler with the defaults of its options, unless it is imported already."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    stand_in = SimpleNamespace(utils=SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer"))
    vars(torch)["_dynamo"] = stand_in
    try:
        yield
    finally:
        if vars(torch).get("_dynamo") is stand_in:
            vars(torch).pop("_dynamo", None)
