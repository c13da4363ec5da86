"""What a network costs, known before it is trained: parameters, computations, receptive field and time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from assay.networks.receptive_field import ReceptiveField
from assay.task import Serving, Task

SECONDS = 0.08  # of timing, after which no further image is timed
FEWEST, MOST = 5, 50  # images that are timed


def _attention(query: Any, keys: Any, values: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, keys, values))  # type: ignore[no-untyped-call]


UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""Operations that torch's counter does not know."""


@dataclass(frozen=True)
class Costs:
    """What one image costs.

    Attributes:
        parameters: numbers that are or were learnt, each counted once; no buffers.
        macs: multiply-adds in convolutions and matrix products.
        receptive_field: pixels a side of the input that one place of the deepest map can depend on, even if the image
            is smaller; 0 if the input is not an image.
        latency_ms: on one thread of a CPU, or on a GPU.
    """

    parameters: int
    macs: int
    receptive_field: int
    latency_ms: float

    @property
    def metrics(self) -> dict[str, float]:
        return {f"cost/{name}": float(value) for name, value in asdict(self).items()}


def costs(module: nn.Module, example: Tensor, device: torch.device) -> Costs:
    """What `module` costs for the first image of `example`, [B, ...].

    The module is moved to the device and put into evaluation mode.
    """
    module, image = module.to(device).eval(), example[:1].to(device)
    flops, field = FlopCounterMode(display=False, custom_mapping=UNCOUNTED), ReceptiveField(image)
    with torch.no_grad(), flops, field:
        module(image)
    return Costs(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        macs=flops.get_total_flops() // 2,
        receptive_field=field.side,
        latency_ms=latency_ms(module, image),
    )


def task_costs(task: Task, serving: type[Serving[Any]]) -> Costs:
    """What the network that the task serves costs, with preprocessing, on the device where its weights are now.

    The task is left unchanged: weights, modes, devices and random generators.

    Raises:
        InputError: the task serves no network.
    """
    modules = list(task.modules.values())
    modes = [(part, part.training) for module in modules for part in module.modules()]
    places = [next((p.device for p in module.parameters()), torch.device("cpu")) for module in modules]
    try:
        export = serving.export(task)  # puts what it serves on the CPU, in evaluation mode
        served = deepcopy(export.module)
    finally:
        for module, place in zip(modules, places, strict=True):
            module.to(place)
        for part, training in modes:
            part.training = training
    return costs(served, torch.from_numpy(export.example), places[0])


def latency_ms(module: nn.Module, image: Tensor) -> float:
    """The median time for a single image, [1, ...]. Measuring takes about 0.1 s, or longer if five images do.

    On a CPU one thread computes, and its own CPU time is counted, without what other processes take. In wall-clock
    time, trials that run side by side would disturb each other.
    """
    timed = _on_gpu if image.is_cuda else _on_cpu
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for _ in range(2):
                module(image)
            found: list[float] = []
            while len(found) < FEWEST or (len(found) < MOST and sum(found) < 1000 * SECONDS):
                found.append(timed(lambda: module(image)))
    finally:
        torch.set_num_threads(threads)
    return statistics.median(found)


def _on_cpu(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return 1000 * (time.thread_time() - started)


def _on_gpu(work: Callable[[], object]) -> float:
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    started.record()
    work()
    ended.record()
    ended.synchronize()
    return float(started.elapsed_time(ended))
