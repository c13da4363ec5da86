"""Several workers as threads of one process: their sums are real, their processes are not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from assay.train.context import LocalContext

Result = TypeVar("Result")


class Group:
    """What the threads share."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.barrier = threading.Barrier(world_size, timeout=20)
        self.slots: list[Tensor] = [torch.empty(0)] * world_size

    def run(self, body: Callable[[int], Result]) -> list[Result]:
        """Call `body(rank)` in a thread a rank; the results by rank."""

        def guarded(rank: int) -> Result:
            try:
                return body(rank)
            except BaseException:
                self.barrier.abort()  # so that the others do not wait for one that failed
                raise

        with ThreadPoolExecutor(self.world_size) as pool:
            futures = [pool.submit(guarded, rank) for rank in range(self.world_size)]
            errors = [error for future in futures if (error := future.exception()) is not None]
            for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
                raise error
            return [future.result() for future in futures]


class ThreadContext(LocalContext):
    """One rank of a `Group`; the sums are taken in the order of the ranks, so they are the same everywhere."""

    def __init__(self, folder: Path, group: Group, rank: int) -> None:
        super().__init__(folder, torch.device("cpu"), 1, rank, group.world_size)
        self.group = group

    def all_reduce(self, tensor: Tensor) -> Tensor:
        self.group.slots[self.rank] = tensor.detach().clone()
        self.group.barrier.wait()
        total = torch.stack(self.group.slots).sum(0)
        self.group.barrier.wait()
        return total

    def gather(self, rows: Tensor) -> Tensor:
        self.group.slots[self.rank] = rows.detach().clone()
        self.group.barrier.wait()
        joined = torch.cat(self.group.slots)
        self.group.barrier.wait()
        return joined

    def wrap(self, module: nn.Module) -> nn.Module:
        """Gradients become their mean over the ranks as soon as they are there."""
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._average)
        return module

    def _average(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad = self.all_reduce(parameter.grad) / self.world_size

    def synchronize_buffers(self, module: nn.Module) -> None:
        for buffer in module.buffers():
            mine = buffer if self.rank == 0 else torch.zeros_like(buffer)
            buffer.copy_(self.all_reduce(mine))
