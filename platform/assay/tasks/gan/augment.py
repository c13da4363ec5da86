"""DiffAugment: random changes of real and generated images alike, through which gradients reach the generator.

Zhao, Liu, Lin, Zhu and Han, "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020, section 3.3:
colour, translation and cutout. The random numbers come from outside, so nothing here has state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from assay.tasks.gan.config import AugmentConfig

NUMBERS = 7
"""Random numbers for each image: brightness, saturation, contrast, two for the shift, two for the hole."""


def augmented(images: Tensor, numbers: Tensor, config: AugmentConfig) -> Tensor:
    """Images [B, C, S, S] of -1 to 1, changed by `numbers` [B, 7] in [0, 1); colour may leave the range."""
    if config.colour:
        images = coloured(images, numbers[:, :3], config.colour)
    if config.translation:
        images = translated(images, numbers[:, 3:5], config.translation)
    if config.cutout:
        images = cut(images, numbers[:, 5:7], config.cutout)
    return images


def coloured(images: Tensor, numbers: Tensor, strength: float) -> Tensor:
    """Brightness by up to half a unit, saturation times 0 to 2, contrast times 0.5 to 1.5, at strength 1."""
    brightness, saturation, contrast = (strength * (2 * numbers - 1)).to(images)[:, :, None, None, None].unbind(1)
    images = images + 0.5 * brightness
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (1 + saturation) + grey
    middle = images.mean((1, 2, 3), keepdim=True)
    return (images - middle) * (1 + 0.5 * contrast) + middle


def translated(images: Tensor, numbers: Tensor, fraction: float) -> Tensor:
    """Shifted by whole pixels, up to `fraction` of the side each way; what is uncovered is 0, a middle grey."""
    side = images.shape[-1]
    farthest = round(fraction * side)
    shift = (numbers * (2 * farthest + 1)).long() - farthest
    along = torch.arange(side, device=images.device) - shift[:, :, None]  # [B, 2, S]: where each row and column was
    kept = (along >= 0) & (along < side)
    rows, columns = along.clamp(0, side - 1).unbind(1)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.movedim(1, -1)[batch, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    return moved * (kept[:, 0, :, None] & kept[:, 1, None, :])[:, None]


def cut(images: Tensor, numbers: Tensor, fraction: float) -> Tensor:
    """A square of `fraction` of the side blanked (0), its middle anywhere in the image."""
    side = images.shape[-1]
    hole = round(fraction * side)
    start = (numbers * side).long() - hole // 2
    along = torch.arange(side, device=images.device) - start[:, :, None]
    inside = (along >= 0) & (along < hole)
    return images * ~(inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
