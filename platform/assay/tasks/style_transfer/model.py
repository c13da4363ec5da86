"""What is learnt: a picture, or a network that paints photographs in any of several styles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.tasks.style_transfer.config import Config


class Canvas(nn.Module):
    """Pictures as parameters, [N, 3, S, S] in 0..1; only the losses keep them in that range."""

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

    def __init__(self, channels: int, styles: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm = ConditionalNorm(channels, styles)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.convolution(F.pad(maps, [1] * 4, mode="reflect")), style)
        return normed


class Block(nn.Module):
    """Two layers next to a shortcut, which alone counts at first, for steady first steps (Goyal et al., 2017)."""

    def __init__(self, channels: int, styles: int) -> None:
        super().__init__()
        self.first = Layer(channels, styles)
        self.second = Layer(channels, styles)
        nn.init.zeros_(self.second.norm.scale)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        changed: Tensor = self.second(F.relu(self.first(maps, style)), style)
        return maps + changed


FLAT = 1e-3
"""The variance, of values in 0..1, below which a photograph's channel is not stretched to the contrast of others."""


class Painter(nn.Module):
    """Photographs [B, 3, H, W] in 0..1 and style numbers int64 [B] to pictures [B, 3, H, W]; sides from 8.

    After Johnson, Alahi and Fei-Fei, ECCV 2016, made cheap: one convolution leads to a quarter of the side, residual
    blocks work there, and two transposed convolutions, with kernels two or three times their stride, lead back.
    The photograph's own channels are normalized first, so that a picture's palette follows from its style alone: so a
    network that learns from few photographs can paint others. A share of the normalized photograph and an
    offset, learnt for each style and channel, are added at the end. The output may leave 0..1: clipping it would
    stop the gradients.
    """

    def __init__(self, config: Config, styles: int) -> None:
        super().__init__()
        width = config.width
        self.down = nn.Conv2d(3, 4 * width, 8, stride=4, bias=False)
        self.down_norm = ConditionalNorm(4 * width, styles)
        self.blocks = nn.ModuleList([Block(4 * width, styles) for _ in range(config.blocks)])
        self.up = nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1, bias=False)
        self.up_norm = ConditionalNorm(2 * width, styles)
        self.leave = nn.ConvTranspose2d(2 * width, 3, 6, stride=2, padding=2, bias=False)
        self.offset = nn.Parameter(torch.full((styles, 3), 0.5))
        self.share = nn.Parameter(torch.full((styles, 3), 0.1))
        nn.init.normal_(self.leave.weight, std=0.005)  # the first pictures are little more than the photographs' shares
        self.to(memory_format=torch.channels_last)

    def forward(self, photographs: Tensor, style: Tensor) -> Tensor:
        normed = F.instance_norm(photographs.contiguous(memory_format=torch.channels_last), eps=FLAT)
        maps = self.down(F.pad(normed, [2] * 4, mode="reflect"))
        maps = F.relu(self.down_norm(maps, style))
        for block in self.blocks:
            maps = block(maps, style)
        height, width = photographs.shape[2:]
        maps = F.relu(self.up_norm(self.up(maps, output_size=(height // 2, width // 2)), style))
        painted: Tensor = self.leave(maps, output_size=(height, width))
        return painted.float() + self.offset[style][:, :, None, None] + self.share[style][:, :, None, None] * normed


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
