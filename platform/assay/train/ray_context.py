"""The context of a Ray Train worker: the process group is there already; gradients and sums go through it."""

from __future__ import annotations

from pathlib import Path

import ray.train
import ray.train.torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from assay.train.context import LocalContext


class RayContext(LocalContext):
    """One of `world_size` workers, on GPUs with NCCL, on CPUs with gloo."""

    def __init__(self, folder: Path, threads: int) -> None:
        here = ray.train.get_context()
        super().__init__(folder, ray.train.torch.get_device(), threads, here.get_world_rank(), here.get_world_size())

    def wrap(self, module: nn.Module) -> nn.Module:
        if self.world_size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        # Buffers are synchronized from rank 0 before each evaluation instead of before each forward pass: no step
        # reads them, and rank 0's alone are saved, so a resumed run has the very same ones.
        return DistributedDataParallel(
            module, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def all_reduce(self, tensor: Tensor) -> Tensor:
        if self.world_size == 1:
            return tensor
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    def synchronize_buffers(self, module: nn.Module) -> None:
        if self.world_size > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)
