"""The spaces in which images are compared, and the judge that names the class of an image. Neither is ever trained.

A space is a module from uint8 images [B, C, S, S] to features [B, D]; its name is part of the metrics' names.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

JUDGED = 5000
"""The most training images that the judge knows."""
JUDGED_SIDE = 16
NEAREST = 3


class Pixels(nn.Module):
    """The pixels themselves, 0..1: no network."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).float() / 255


class Lite0(nn.Module):
    """EfficientNet-Lite0 (timm's `tf_efficientnet_lite0`), trained on ImageNet: its maps of stride 8, 40 channels,
    averaged over all places. Images are resized to at least 64 pixels a side; grey is repeated to RGB.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        from assay.networks import catalog

        name = "timm:tf_efficientnet_lite0"
        self.maps = catalog.feature_maps(name, channels=3, weights="imagenet", strides=(8,))
        mean, std = catalog.normalization(name)
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.expand(-1, 3, -1, -1).float() / 255
        size = max(64, images.shape[-1])
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)
        features: Tensor = self.maps((pixels - self.mean) / self.std)[0].mean((2, 3))
        return features


SPACES: dict[str, type[nn.Module]] = {"pixels": Pixels, "lite0": Lite0}


class Judge:
    """Names the class of an image by the 3 nearest of the real training images, at 16 pixels a side at most.

    It never sees the discriminator or the features, so the generator cannot learn to please it. How good it is shows
    on real images that it does not know.
    """

    def __init__(self, images: Tensor, labels: NDArray[np.int64]) -> None:
        """From uint8 [N, C, S, S] and the class of each."""
        from sklearn.neighbors import KNeighborsClassifier

        self.neighbours = KNeighborsClassifier(NEAREST).fit(_small(images), labels)

    def __call__(self, images: Tensor) -> NDArray[np.int64]:
        """The classes [B] of uint8 [B, C, S, S]."""
        found: NDArray[np.int64] = self.neighbours.predict(_small(images))
        return found


def _small(images: Tensor) -> NDArray[np.float32]:
    side = min(JUDGED_SIDE, images.shape[-1])
    pixels: NDArray[np.float32] = F.adaptive_avg_pool2d(images.cpu().float(), side).flatten(1).numpy()
    return pixels
