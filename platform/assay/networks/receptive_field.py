"""How far a network sees, followed through the operations that it computes, whatever its layers are called.

1 plus the sum over all layers of (kernel - 1) times the stride of the layer's input (Araujo, Norris and Sim, "Computing
Receptive Fields of Convolutional Neural Networks", Distill 2019, equation 2); where branches meet, the largest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

Reach = tuple[tuple[float, float], ...]
"""For each dimension of the image: pixels that one place depends on, and pixels from one place to the next."""

TAPS = {"nearest": 1, "bilinear": 2, "bicubic": 4}


class ReceptiveField(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, `side` becomes the most pixels a side of `image`, [B, C, H, W], that one place depends on.

    Convolutions, pooling, interpolation and (fused) attention widen it. Global and adaptive pooling, with which a head
    turns maps into vectors, do not, nor does the image's border narrow it. 0 if `image` is not an image.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.whole = image.shape[2:]
        self.reach = WeakTensorKeyDictionary()
        self.reach[image] = ((1.0, 1.0),) * len(self.whole)
        self.side = min(len(self.whole), 1)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        seen = [self.reach[t] for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t in self.reach]
        made = function(*args, **kwargs)
        if self.whole and seen:
            names = (argument.name for argument in function._schema.arguments)
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            joined = tuple((max(r[0] for r in of), max(r[1] for r in of)) for of in zip(*seen, strict=True))
            for tensor in tree_leaves(made):
                if isinstance(tensor, Tensor):
                    self.reach[tensor] = self._after(function.__name__, given, joined, tensor)
        return made

    def _after(self, name: str, given: Mapping[str, Any], reach: Reach, made: Tensor) -> Reach:
        if name.startswith("convolution"):
            after = _convolved(given, reach)
        elif "pool" in name and "kernel_size" in given:
            after = _pooled(given, reach)
        elif "upsample" in name:
            after = _resized(name, given, reach, made)
        elif "scaled_dot_product" in name:
            after = tuple((max(field, side), jump) for (field, jump), side in zip(reach, self.whole, strict=True))
        else:
            after = reach
        self.side = max(self.side, *(round(field) for field, _ in after))
        return after


def _convolved(given: Mapping[str, Any], reach: Reach) -> Reach:
    kernel = given["weight"].shape[2:]
    if len(kernel) != len(reach):
        return reach
    after = []
    sizes = (kernel, *(_each(given[name], len(reach)) for name in ("stride", "dilation")))
    for (field, jump), size, stride, dilation in zip(reach, *sizes, strict=True):
        span = (size - 1) * dilation
        after.append(
            (field + span // stride * jump, jump / stride)
            if given["transposed"]
            else (field + span * jump, jump * stride)
        )
    return tuple(after)


def _pooled(given: Mapping[str, Any], reach: Reach) -> Reach:
    count = len(reach)
    kernel = _each(given["kernel_size"], count)
    if given["self"].shape[-count:] == tuple(kernel):
        return reach
    strides = _each(given.get("stride") or kernel, count)
    dilations = _each(given.get("dilation", 1), count)
    return tuple(
        (field + (size - 1) * dilation * jump, jump * stride)
        for (field, jump), size, stride, dilation in zip(reach, kernel, strides, dilations, strict=True)
    )


def _resized(name: str, given: Mapping[str, Any], reach: Reach, made: Tensor) -> Reach:
    image: Tensor = given["self"] if "self" in given else given["input"]
    taps = next((count for kind, count in TAPS.items() if kind in name), 1)
    after = []
    for (field, jump), old, new in zip(reach, image.shape[2:], made.shape[2:], strict=True):
        reached = math.ceil(taps * max(old / new, 1)) if name.split(".", maxsplit=1)[0].endswith("_aa") else taps
        after.append((field, jump) if old == new else (field + (reached - 1) * jump, jump * old / new))
    return tuple(after)


def _each(value: int | Sequence[int], count: int) -> Sequence[int]:
    """One value per dimension; a single number counts for all."""
    several = [value] if isinstance(value, int) else list(value)
    return several * count if len(several) == 1 else several
