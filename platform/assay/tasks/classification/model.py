"""Networks for classification, by name, and the classifier around them that takes raw pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.tasks.classification.config import Config


def small_cnn(config: Config, channels: int, classes: int) -> nn.Module:
    """Two 3x3 convolutions a stage, the side halved and the width doubled until 4 pixels are left.

    [B, C, S, S] to [B, classes]. The last map is flattened where it is small, for the place of a stroke matters.
    """
    layers: list[nn.Module] = []
    width, side, into = config.width, config.image_size, channels
    while True:
        layers += [_block(into, width), _block(width, width)]
        into = width
        if side < 8:
            break
        layers.append(nn.MaxPool2d(2))
        width, side = min(2 * width, 8 * config.width), side // 2
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(min(side, 4)),
        nn.Flatten(),
        nn.Dropout(config.dropout),
        nn.Linear(into * min(side, 4) ** 2, classes),
    )


ARCHITECTURES: dict[str, Callable[[Config, int, int], nn.Module]] = {"small_cnn": small_cnn}


class Classifier(nn.Module):
    """A network behind its normalization: pixels 0 to 255, [B, C, S, S], to logits [B, K]."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: Config, classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).clamp_min(1e-3).reshape(-1, 1, 1))
        self.network = ARCHITECTURES[config.architecture](config, len(mean), classes)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network((pixels.float() - self.mean) / self.std)
        return logits


class Served(nn.Module):
    """The classifier as users call it: images of any size, uint8 [B, C, H, W], to probabilities [B, K]."""

    def __init__(self, classifier: Classifier, image_size: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        probabilities: Tensor = self.classifier(resize(images, self.image_size)).softmax(dim=1)
        return probabilities


def resize(images: Tensor, size: int) -> Tensor:
    """[B, C, H, W] to [B, C, size, size] by antialiased bilinear interpolation, in whole steps of 0 to 255.

    Training and serving share it to the bit.
    """
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    pixels: Tensor = resized.round().clamp(0, 255)
    return pixels


def _block(into: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True))
