"""What is learnt: a picture, or a network that paints photographs in any of several styles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.tasks.style_transfer.config import Config


GAIN = 0.1
"""Of the last convolution. It sums so many maps that with 1 a first step would leave the range of pictures."""


class Canvas(nn.Module):
    """Pictures as parameters, [N, 3, S, S] in 0..1; nothing but their looks keeps them there."""

    def __init__(self, pictures: Tensor) -> None:
        super().__init__()
        self.pictures = nn.Parameter(pictures)

    def forward(self) -> Tensor:
        return self.pictures


class ConditionalNorm(nn.Module):
    """Instance normalization whose scale and offset belong to a style.

    Ulyanov, Vedaldi and Lempitsky, "Improved Texture Networks", CVPR 2017; Dumoulin, Shlens and Kudlur, "A Learned
    Representation for Artistic Style", ICLR 2017, equation 5.
    """

    def __init__(self, channels: int, styles: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(styles, channels))
        self.offset = nn.Parameter(torch.zeros(styles, channels))

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        """[B, C, H, W] and style numbers int64 [B] to [B, C, H, W]."""
        centred = maps - maps.mean((2, 3), keepdim=True)
        variance = centred.square().mean((2, 3), keepdim=True, dtype=torch.float32)
        scale = self.scale[style][:, :, None, None] * torch.rsqrt(variance + 1e-5)
        return centred * scale.to(maps.dtype) + self.offset[style][:, :, None, None].to(maps.dtype)


class Layer(nn.Module):
    """A convolution behind a reflected border, and a conditional normalization."""

    def __init__(self, into: int, out: int, kernel: int, styles: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(into, out, kernel, stride, bias=False)
        self.norm = ConditionalNorm(out, styles)
        self.border = kernel // 2

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        padded = F.pad(maps, [self.border] * 4, mode="reflect")
        normed: Tensor = self.norm(self.convolution(padded), style)
        return normed


class Block(nn.Module):
    """Two layers beside a shortcut."""

    def __init__(self, channels: int, styles: int) -> None:
        super().__init__()
        self.first = Layer(channels, channels, 3, styles)
        self.second = Layer(channels, channels, 3, styles)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        changed: Tensor = self.second(F.relu(self.first(maps, style)), style)
        return maps + changed


class Painter(nn.Module):
    """Photographs [B, 3, H, W] in 0..1 and style numbers int64 [B] to pictures [B, 3, H, W]; sides from 8.

    Johnson, Alahi and Fei-Fei, ECCV 2016: down to a quarter of the side, residual blocks, and up again by repeated
    pixels and a convolution (Odena, Dumoulin and Olah, "Deconvolution and Checkerboard Artifacts", Distill 2016).
    The output is a change of the photograph's own pixels, none at first, so that learning starts from the content.
    It may leave 0..1: what is cut off could not be learnt from.
    """

    def __init__(self, config: Config, styles: int) -> None:
        super().__init__()
        width = config.width
        self.down = nn.ModuleList(
            [Layer(3, 2 * width, 5, styles, stride=2), Layer(2 * width, 4 * width, 3, styles, stride=2)]
        )
        self.blocks = nn.ModuleList([Block(4 * width, styles) for _ in range(config.blocks)])
        self.up = nn.ModuleList([Layer(4 * width, 2 * width, 3, styles), Layer(2 * width, width, 3, styles)])
        self.leave = nn.Conv2d(width, 3, 5)
        nn.init.zeros_(self.leave.weight)
        self.to(memory_format=torch.channels_last)

    def forward(self, photographs: Tensor, style: Tensor) -> Tensor:
        maps = 2 * photographs.contiguous(memory_format=torch.channels_last) - 1
        sizes = []
        for layer in self.down:
            sizes.append(maps.shape[2:])
            maps = F.relu(layer(maps, style))
        for block in self.blocks:
            maps = block(maps, style)
        for layer, size in zip(self.up, reversed(sizes), strict=True):  # by size: a side need not divide by 4
            maps = F.relu(layer(F.interpolate(maps, size, mode="nearest"), style))
        change = self.leave(F.pad(maps, [2] * 4, mode="reflect"))
        return photographs + torch.tanh(GAIN * change.float())


class Served(nn.Module):
    """The network as users call it: uint8 [B, 3, H, W] of any size from 8 to uint8 [B, N, 3, H, W], all N styles."""

    def __init__(self, painter: Painter, styles: int) -> None:
        super().__init__()
        self.painter = painter
        self.styles = styles

    def forward(self, photographs: Tensor) -> Tensor:
        pixels = photographs.float() / 255
        pictures = []
        for number in range(self.styles):
            style = torch.full_like(photographs[:, 0, 0, 0], number, dtype=torch.int64)
            pictures.append(self.painter(pixels, style))
        return torch.stack(pictures, 1).mul(255).round().clamp(0, 255).to(torch.uint8)
