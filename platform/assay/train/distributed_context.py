"""The context of one of several workers: gradients and sums go through the process group, which exists already."""

from __future__ import annotations

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from assay.train.batch_norm import synchronize
from assay.train.context import LocalContext
from assay.train.uncompiled import uncompiled_parallel


class DistributedContext(LocalContext):
    """One of `world_size` workers, on GPUs with NCCL, on CPUs with gloo. A single one needs no process group."""

    def wrap(self, module: nn.Module) -> nn.Module:
        module = super().wrap(module)
        if self.world_size == 1:
            return module
        synchronize(module)
        devices = [self.device] if self.device.type == "cuda" else None
        # Buffers are synchronized from rank 0 before each evaluation, not before each forward pass: no step reads them,
        # and rank 0's alone are saved, so a resumed run has the very same ones.
        return uncompiled_parallel(module, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        if self.world_size == 1:
            return tensor
        total = tensor.detach().clone()
        distributed.all_reduce(total)
        return total

    def gather(self, rows: Tensor) -> Tensor:
        if self.world_size == 1:
            return rows
        counts = torch.zeros(self.world_size, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        distributed.all_reduce(counts)
        padded = rows.new_zeros(int(counts.max()), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.world_size)]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)])

    def synchronize_buffers(self, module: nn.Module) -> None:
        if self.world_size > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)
