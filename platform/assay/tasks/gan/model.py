"""Generators and discriminators for square images of any power of two.

Two pairs: that of R3GAN (residual, without normalization) and that of DCGAN (transposed convolutions, batch
normalization). Both take their class the same way: the generator as numbers after the latent, the discriminator by
projection (Miyato and Koyama, "cGANs with Projection Discriminator", ICLR 2018, equation 3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.tasks.gan.config import Config

SLOPE = 0.2
WIDEST = 8  # times `width`
SMALLEST = 8  # pixels a side of a map of the residual networks; anything smaller is one vector
OVERSHOOT = 1.5  # of the generated values, before they are cut to -1..1


class Generator(nn.Module):
    """[B, latent + classes] to images [B, C, S, S], -1 to 1. `classes` is 0 if it is not conditional."""

    def __init__(self, config: Config, channels: int, classes: int) -> None:
        super().__init__()
        make = residual_generator if config.loss == "r3gan" else dcgan_generator
        self.network = make(config, config.latent + classes, channels)

    def forward(self, inputs: Tensor) -> Tensor:
        images: Tensor = self.network(inputs)
        return images


class Discriminator(nn.Module):
    """Images [B, C, S, S] and their classes [B] to logits [B]: high for real. Without classes the second is unused."""

    def __init__(self, config: Config, channels: int, classes: int) -> None:
        super().__init__()
        make = residual_features if config.loss == "r3gan" else dcgan_features
        width, depth = config.discriminator_width or config.width, config.discriminator_depth or config.depth
        self.features, width = make(config.model_copy(update={"width": width, "depth": depth}), channels)
        self.score = nn.Linear(width, 1)
        self.classes = nn.Embedding(classes, width) if classes else None
        if self.classes is not None:
            nn.init.zeros_(self.classes.weight)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        features = self.features(images)
        scores: Tensor = self.score(features)[:, 0]
        if self.classes is not None:
            scores = scores + (self.classes(labels) * features).sum(1)
        return scores


class Residual(nn.Module):
    """x + layer(act(layer(act(x)))): the second layer starts at zero, the first scaled by the number of blocks.

    So signals and gradients keep their size without normalization (Zhang, Dauphin and Ma, "Fixup Initialization",
    ICLR 2019, section 3), as in R3GAN, section 3.3.
    """

    def __init__(self, make: Callable[[], nn.Conv2d | nn.Linear], blocks: int) -> None:
        super().__init__()
        self.first, self.second, self.blocks = make(), make(), blocks

    def start(self) -> None:
        nn.init.kaiming_normal_(self.first.weight, a=SLOPE)
        with torch.no_grad():
            self.first.weight.mul_(self.blocks**-0.5)
        for zero in (self.first.bias, self.second.weight, self.second.bias):
            nn.init.zeros_(zero)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(F.leaky_relu(x, SLOPE))
        changed: Tensor = x + self.second(F.leaky_relu(inner, SLOPE))
        return changed


def residual_generator(config: Config, inputs: int, channels: int) -> nn.Module:
    """Dense blocks on one vector, which becomes an image of 8 pixels a side; larger images continue from a map of that
    size with convolutional blocks, up to half of the image.
    """
    core, wide = WIDEST * config.width, _widths(config, SMALLEST)
    blocks = config.depth * (1 + len(wide))
    first, top = nn.Linear(inputs, core), wide[0] if wide else channels
    layers: list[nn.Module] = [first, *_dense(core, config.depth, blocks), nn.LeakyReLU(SLOPE)]
    layers += [nn.Linear(core, top * SMALLEST**2), nn.Unflatten(1, (top, SMALLEST, SMALLEST))]
    for place, width in enumerate(wide):
        if place:
            layers += [nn.Conv2d(wide[place - 1], width, 1, bias=False), _doubled()]
        layers += _convolutional(width, config.depth, blocks)
    if wide:
        layers += [nn.LeakyReLU(SLOPE), _doubled(), nn.Conv2d(wide[-1], channels, 3, padding=1)]
    network = nn.Sequential(*layers, Cut()).apply(_keep_size)
    with torch.no_grad():  # the latent weighs as much as the class, which is a single 1
        first.weight[:, : config.latent].normal_(0, (2 * config.latent) ** -0.5)
        first.weight[:, config.latent :].normal_(0, 0.5**0.5)
    return network


def residual_features(config: Config, channels: int) -> tuple[nn.Module, int]:
    """The generator in reverse."""
    core, wide = WIDEST * config.width, _widths(config, SMALLEST)[::-1]
    blocks = config.depth * (1 + len(wide))
    layers: list[nn.Module] = [nn.Conv2d(channels, wide[0], 4, 2, 1)] if wide else []
    for place, width in enumerate(wide):
        if place:
            layers += [nn.AvgPool2d(2), nn.Conv2d(wide[place - 1], width, 1, bias=False)]
        layers += _convolutional(width, config.depth, blocks)
    if wide:
        layers.append(nn.LeakyReLU(SLOPE))
    layers += [nn.Flatten(), nn.Linear((wide[-1] if wide else channels) * SMALLEST**2, core)]
    layers += [*_dense(core, config.depth, blocks), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers).apply(_keep_size), core


class Cut(nn.Module):
    """-1..1 with both ends within reach.

    A tanh alone only approaches them: pure black gets a haze that people overlook and networks do not.
    """

    def forward(self, x: Tensor) -> Tensor:
        return (OVERSHOOT * torch.tanh(x)).clamp(-1, 1)


def _widths(config: Config, smallest: int) -> list[int]:
    """Channels of the maps from `smallest` pixels a side to half of the image: `width` there, doubled at each halving,
    to 8 times it; empty if half of the image is smaller.
    """
    halvings = (config.image_size // smallest).bit_length() - 2
    return [config.width * min(2**i, WIDEST) for i in range(halvings, -1, -1)]


def _dense(width: int, depth: int, blocks: int) -> list[nn.Module]:
    return [Residual(partial(nn.Linear, width, width), blocks) for _ in range(depth)]


def _convolutional(width: int, depth: int, blocks: int) -> list[nn.Module]:
    return [Residual(partial(nn.Conv2d, width, width, 3, padding=1), blocks) for _ in range(depth)]


def _keep_size(module: nn.Module) -> None:
    """Layers outside blocks keep the size of signals, whose power torch's default start would divide by three."""
    if isinstance(module, Residual):
        module.start()
    elif isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _doubled() -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


def dcgan_generator(config: Config, inputs: int, channels: int) -> nn.Module:
    """Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional GANs", ICLR 2016.

    It begins at 4 pixels a side, or at 2 for images of 8, so that each has at least three layers.
    """
    wide = _dcgan_widths(config)
    side = config.image_size >> len(wide)
    layers: list[nn.Module] = [
        nn.Unflatten(1, (inputs, 1, 1)),
        nn.ConvTranspose2d(inputs, wide[0], side, bias=False),
        *_normalized(wide[0]),
    ]
    for into, out in zip(wide, wide[1:], strict=False):
        layers += [nn.ConvTranspose2d(into, out, 4, 2, 1, bias=False), *_normalized(out)]
    network = nn.Sequential(*layers, nn.ConvTranspose2d(wide[-1], channels, 4, 2, 1), nn.Tanh())
    return network.apply(_dcgan_start)


def dcgan_features(config: Config, channels: int) -> tuple[nn.Module, int]:
    """The discriminator of the same paper up to its last layer; no batch normalization on the image itself."""
    wide = _dcgan_widths(config)[::-1]
    layers: list[nn.Module] = [nn.Conv2d(channels, wide[0], 4, 2, 1), nn.LeakyReLU(SLOPE)]
    for into, out in zip(wide, wide[1:], strict=False):
        layers += [nn.Conv2d(into, out, 4, 2, 1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(SLOPE)]
    network = nn.Sequential(*layers, nn.Flatten())
    return network.apply(_dcgan_start), wide[-1] * (config.image_size >> len(wide)) ** 2


def _dcgan_widths(config: Config) -> list[int]:
    wide = _widths(config, 4)
    return wide if len(wide) > 1 else [2 * config.width, config.width]


def _normalized(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.ReLU()]


def _dcgan_start(module: nn.Module) -> None:
    """The paper's: weights of deviation 0.02."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class Served(nn.Module):
    """The generator as users call it: float32 [B, latent + classes], the class one-hot, to uint8 [B, C, S, S]."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, inputs: Tensor) -> Tensor:
        return as_bytes(self.generator(inputs))


def as_bytes(images: Tensor) -> Tensor:
    """-1..1 to uint8 0..255, by rounding."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
