"""Batch normalization by the moments of the whole batch, whatever the number of workers; on CPUs too.

torch's own `SyncBatchNorm` needs GPUs. This one takes any backend, any subclass of torch's layers that keeps timm's
convention (`drop` and `act` after the normalization), and can be differentiated twice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverWorkers(torch.autograd.Function):
    """The sum over all workers; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        total: Tensor = _SumOverWorkers.apply(gradient.contiguous())
        return total


class _Synchronized(_BatchNorm):
    """Mixed in before the class of a layer: its training step sees every worker's samples."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        normalized = _normalize(self, x)
        for name in ("drop", "act"):
            if isinstance(tail := getattr(self, name, None), nn.Module):
                normalized = tail(normalized)
        return normalized


def _normalize(layer: _BatchNorm, x: Tensor) -> Tensor:
    """[B, C, ...]. Moments are joined in double precision, from each worker's own (Chan, Golub and LeVeque, 1979)."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    wide = torch.promote_types(x.dtype, torch.float32)
    variance, mean = torch.var_mean(x.to(wide), axes, correction=0)
    variance, mean, here = variance.double(), mean.double(), x.numel() / x.shape[1]
    count = torch.full_like(mean, here)
    packed = torch.stack([here * mean, here * (variance + mean.square()), count])
    first, second, total = _SumOverWorkers.apply(packed).unbind()
    mean = first / total
    variance = (second / total - mean.square()).clamp_min(0)
    _track(layer, mean.detach(), (variance * total / (total - 1)).detach())
    shape = [1, -1] + [1] * (x.ndim - 2)
    scale = (variance + layer.eps).rsqrt()
    normalized = (x.to(wide) - mean.to(wide).view(shape)) * scale.to(wide).view(shape)
    if layer.affine:
        normalized = normalized * layer.weight.view(shape) + layer.bias.view(shape)
    result: Tensor = normalized.to(x.dtype)
    return result


def _track(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked += 1
    share = layer.momentum if layer.momentum is not None else 1 / float(layer.num_batches_tracked)
    layer.running_mean += share * (mean - layer.running_mean).to(layer.running_mean)
    layer.running_var += share * (variance - layer.running_var).to(layer.running_var)


def synchronize(module: nn.Module) -> None:
    """Have every batch normalization in `module` see the samples of all workers. In place; parameters stay theirs."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, (_Synchronized, nn.SyncBatchNorm)):
            layer.__class__ = type(f"Synchronized{type(layer).__name__}", (_Synchronized, type(layer)), {})
