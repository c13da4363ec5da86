"""Random changes of training images, each by the numbers of its own `Draw`."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from assay.networks.libraries import import_torchvision
from assay.tasks.classification.config import AugmentConfig, Config
from assay.train.randomness import Draw

ERASED = (0.02, 0.2)  # smallest and largest erased area, as fractions of the image's


def augmented(images: Tensor, config: AugmentConfig, draw: Draw, purpose: str = "affine") -> Tensor:
    """[B, C, S, S] of 0 to 255, changed as configured. Floats 0 to 255."""
    if config.shift or config.rotate or config.scale or config.flip:
        images = _moved(images, config, draw, purpose)
    if config.colour:
        images = _coloured(images.float(), config.colour, draw.uniform(f"{purpose}/colour", 4))
    if config.erase:
        images = _erased(images.float(), config.erase, draw.uniform(f"{purpose}/erase", 5))
    return images.float()


def _moved(images: Tensor, config: AugmentConfig, draw: Draw, purpose: str) -> Tensor:
    """Each image turned, scaled, shifted and mirrored by its own random numbers; borders repeat."""
    turn, grow, right, down, mirror = torch.from_numpy(2 * draw.uniform(purpose, 5) - 1).float().unbind(1)
    angle = turn * config.rotate * torch.pi / 180
    scale = 1 / (1 + grow * config.scale)
    flip = torch.where(mirror < 0, -1.0, 1.0) if config.flip else torch.ones_like(mirror)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    across = torch.stack([cos * flip, -sin, 2 * config.shift * right], 1)
    along = torch.stack([sin * flip, cos, 2 * config.shift * down], 1)
    grid = F.affine_grid(torch.stack([across, along], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def _coloured(images: Tensor, strength: float, numbers: NDArray[np.float64]) -> Tensor:
    """Brightness, contrast and saturation of each image times factors of 1 - strength to 1 + strength, and its hue
    turned by at most the share `strength` of half the colour circle.
    """
    import_torchvision()
    from torchvision.transforms.v2 import functional as transforms

    changed = []
    for image, (bright, contrast, saturation, hue) in zip(images / 255, strength * (2 * numbers - 1), strict=True):
        image = transforms.adjust_brightness(image, 1 + bright)
        image = transforms.adjust_contrast(image, 1 + contrast)
        image = transforms.adjust_saturation(image, 1 + saturation)
        changed.append(transforms.adjust_hue(image, hue / 2))
    return 255 * torch.stack(changed)


def _erased(images: Tensor, share: float, numbers: NDArray[np.float64]) -> Tensor:
    """A rectangle of some of the images in the mean colour of its image (Zhong et al., "Random Erasing", 2017)."""
    import_torchvision()
    from torchvision.transforms.v2 import functional as transforms

    side = images.shape[-1]
    area = ERASED[0] + (ERASED[1] - ERASED[0]) * numbers[:, 1]
    longer = np.sqrt(2.0) ** (2 * numbers[:, 2] - 1)  # height to width between 1/2 and 2, half of it on each side
    height = np.clip(np.rint(side * np.sqrt(area) * longer), 1, side).astype(int)
    width = np.clip(np.rint(side * np.sqrt(area) / longer), 1, side).astype(int)
    top = np.floor(numbers[:, 3] * (side - height + 1)).astype(int)
    left = np.floor(numbers[:, 4] * (side - width + 1)).astype(int)
    changed = [
        transforms.erase(image, int(y), int(x), int(h), int(w), image.mean((1, 2), keepdim=True))
        if number < share
        else image
        for image, number, y, x, h, w in zip(images, numbers[:, 0], top, left, height, width, strict=True)
    ]
    return torch.stack(changed)


def mixed(
    images: Tensor, targets: Tensor, others: Tensor, their_targets: Tensor, config: Config, draw: Draw
) -> tuple[Tensor, Tensor]:
    """Each image with its partner, each by its own share: mixup, CutMix, or, if both are on, either at random.

    Images [B, C, S, S], targets [B, K]. Mixup: Zhang et al., ICLR 2018, equation 1; CutMix: Yun et al., ICCV 2019.
    """
    from scipy.special import betaincinv

    coin, quantile, across, down = draw.uniform("mix", 4).T
    cut = coin < 0.5 if config.mixup and config.cutmix else np.full(len(coin), config.cutmix > 0)
    strength = np.where(cut, config.cutmix, config.mixup)
    share = torch.from_numpy(betaincinv(strength, strength, quantile)).float().reshape(-1, 1, 1, 1)
    side = images.shape[-1]
    half = (1 - share).sqrt() / 2
    places = (torch.arange(side) + 0.5) / side
    x, y = (torch.from_numpy(centre).float().reshape(-1, 1, 1, 1) for centre in (across, down))
    inside = ((places - x).abs() < half) & ((places[:, None] - y).abs() < half)
    kept = torch.where(torch.from_numpy(cut).reshape(-1, 1, 1, 1), (~inside).float(), share)
    images = kept * images + (1 - kept) * others
    weight = kept.mean((1, 2, 3))[:, None]
    return images, weight * targets + (1 - weight) * their_targets
