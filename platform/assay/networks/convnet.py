"""The convolutional network of a `NetworkConfig`: a stem and up to four stages, for images of any size.

Blocks are plain convolutions (Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015), residual ones
(He et al., "Deep Residual Learning", CVPR 2016, figures 2 and 5) or inceptions (Szegedy et al., "Going Deeper with
Convolutions", CVPR 2015, figure 2; the two kernels in a row stand for its larger one).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from assay.networks.shape import NetworkConfig, StageConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}
GROUP = 8  # fewest channels that are normalized together: of fewer, on small maps, little would be left
SMALLEST = 8  # pixels a side of the smallest map that is halved
STRIDE = 4  # of the stem before feature maps


def body(config: NetworkConfig, channels: int, side: int) -> tuple[list[nn.Module], int, int]:
    """The stem and the stages with blocks, for images [B, channels, side, side]; channels and side of the last map.

    The stem divides the side by 2 (from 64 pixels) or 4 (from 128); a later stage halves it if it is 8 or more.
    """
    stride = 1 if side < 64 else 2 if side < 128 else 4
    layers, into, side = [stem(config, channels, stride)], config.stem, math.ceil(side / stride)
    for chosen in config.stages:
        if chosen.depth:
            halve = len(layers) > 1 and side >= SMALLEST
            layers.append(stage(config, chosen, into, halve))
            into, side = chosen.width, side // 2 if halve else side
    return layers, into, side


class Maps(nn.Module):
    """[B, C, H, W] to a list of maps [B, channels[i], H / strides[i], W / strides[i]].

    H and W are multiples of the last stride. The stages work at the strides 4, 8, 16 and 32; one of depth 0 does
    nothing but halve the side.
    """

    origin = "random"

    def __init__(self, config: NetworkConfig, channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = list(strides)
        self.stem = stem(config, channels, STRIDE)
        self.stages = nn.ModuleList()
        self.channels: list[int] = []
        into = config.stem
        for number, chosen in enumerate(config.stages):
            stride = STRIDE << number
            if stride <= self.strides[-1]:
                self.stages.append(stage(config, chosen, into, halve=number > 0))
                into = chosen.width if chosen.depth else into
                self.channels += [into] if stride in self.strides else []

    def forward(self, images: Tensor) -> list[Tensor]:
        x, found = self.stem(images), []
        for number, layer in enumerate(self.stages):
            x = layer(x)
            if STRIDE << number in self.strides:
                found.append(x)
        return found


def stem(config: NetworkConfig, channels: int, stride: int) -> nn.Module:
    """One convolution whose kernel extends one stride in each direction; sides are divided and rounded up."""
    first = nn.Conv2d(channels, config.stem, 2 * stride + 1, stride, stride, bias=config.normalization == "none")
    return nn.Sequential(started(first), *_normalized(config, config.stem), ACTIVATIONS[config.activation]())


def stage(config: NetworkConfig, chosen: StageConfig, into: int, halve: bool) -> nn.Module:
    make = {"plain": _plain, "residual": Residual, "inception": Inception}[chosen.block]
    widths = [into, *[chosen.width] * chosen.depth]
    blocks = [make(config, chosen, before, after) for before, after in zip(widths, widths[1:], strict=False)]
    return nn.Sequential(*([nn.MaxPool2d(2)] if halve else []), *blocks)


class Residual(nn.Module):
    """activation(shortcut(x) + branch(x)). The branch begins at 0 (Goyal et al., "Accurate, Large Minibatch SGD",
    2017, section 5.1), so that a deep network starts as a shallow one, with or without normalization.
    """

    def __init__(self, config: NetworkConfig, chosen: StageConfig, into: int, out: int) -> None:
        super().__init__()
        middle = _middle(out)
        if chosen.bottleneck:
            layers = [*unit(config, into, middle, 1), *unit(config, middle, middle, chosen.kernel)]
            layers += unit(config, middle, out, 1)[:-1]
        else:
            layers = [*unit(config, into, out, chosen.kernel), *unit(config, out, out, chosen.kernel)[:-1]]
        nn.init.zeros_(layers[-1].weight)  # type: ignore[arg-type]
        self.branch = nn.Sequential(*layers)
        self.shortcut = nn.Identity() if into == out else nn.Sequential(*unit(config, into, out, 1)[:-1])
        self.activation = ACTIVATIONS[config.activation]()

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.activation(self.shortcut(x) + self.branch(x))
        return changed


class Inception(nn.Module):
    """1x1, one kernel, two kernels in a row, and a 3x3 maximum, each with a quarter of the width."""

    def __init__(self, config: NetworkConfig, chosen: StageConfig, into: int, out: int) -> None:
        super().__init__()
        quarter = out // 4
        wide = out - 3 * quarter

        def kernels(*widths: int) -> nn.Module:
            layers, before = [], into
            if chosen.bottleneck:
                before = _middle(widths[0])
                layers += unit(config, into, before, 1)
            for width in widths:
                layers += unit(config, before, width, chosen.kernel)
                before = width
            return nn.Sequential(*layers)

        self.branches = nn.ModuleList(
            [
                nn.Sequential(*unit(config, into, quarter, 1)),
                kernels(wide),
                kernels(quarter, quarter),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), *unit(config, into, quarter, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _plain(config: NetworkConfig, chosen: StageConfig, into: int, out: int) -> nn.Module:
    if not chosen.bottleneck:
        return nn.Sequential(*unit(config, into, out, chosen.kernel))
    middle = _middle(out)
    layers = [*unit(config, into, middle, 1), *unit(config, middle, middle, chosen.kernel)]
    return nn.Sequential(*layers, *unit(config, middle, out, 1))


def unit(config: NetworkConfig, into: int, out: int, kernel: int) -> list[nn.Module]:
    """A convolution that keeps the side, its normalization, if any, and its activation, which is always last."""
    bias = config.normalization == "none"
    layers: list[nn.Module] = []
    if config.separable and kernel > 1:
        layers.append(started(nn.Conv2d(into, into, kernel, padding=kernel // 2, groups=into, bias=False), gain=1.0))
        kernel = 1
    layers.append(started(nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=bias)))
    return [*layers, *_normalized(config, out), ACTIVATIONS[config.activation]()]


def started(layer: nn.Conv2d, gain: float = 2**0.5) -> nn.Conv2d:
    """Draw weights with which signals keep their size after rectifiers (He et al., "Delving Deep", ICCV 2015)."""
    nn.init.normal_(layer.weight, std=gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer.to(memory_format=torch.channels_last)  # up to twice as fast on a CPU


def _normalized(config: NetworkConfig, width: int) -> list[nn.Module]:
    if config.normalization == "batch":
        return [nn.BatchNorm2d(width)]
    return [nn.GroupNorm(math.gcd(max(width // GROUP, 1), width), width)] if config.normalization == "group" else []


def _middle(width: int) -> int:
    """Channels between the 1x1 convolutions of a bottleneck."""
    return max(width // 2, 1)
