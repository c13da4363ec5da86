"""Networks for classification, by name, and the classifier around them that takes raw pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.networks import convnet
from assay.networks.shape import CONVNET
from assay.tasks.classification.config import SMALL, Config


def small_cnn(config: Config, channels: int, classes: int) -> nn.Module:
    """Two 3x3 convolutions a stage, the side halved and the width doubled until 4 pixels are left.

    [B, C, S, S] to [B, classes]. With `pool: place` the last map, of at most 4x4, is flattened, for in centred things
    the place of a stroke matters; with `max` only the maximum of each feature counts, for things that lie anywhere,
    and with `average` its mean.
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
    return nn.Sequential(*layers, *_head(config, into, side, classes))


def _head(config: Config, width: int, side: int, classes: int) -> list[nn.Module]:
    kept = min(side, 4) if config.pool == "place" else 1
    return [
        nn.AdaptiveMaxPool2d(1) if config.pool == "max" else nn.AdaptiveAvgPool2d(kept),
        nn.Flatten(),
        nn.Dropout(config.dropout),
        nn.Linear(width * kept**2, classes),
    ]


def make_network(config: Config, channels: int, classes: int, pretrained: bool) -> tuple[nn.Module, str]:
    """The configured network, normalized images [B, C, S, S] to logits [B, K], and where its weights came from."""
    if config.architecture == SMALL:
        return small_cnn(config, channels, classes), "random"
    if config.architecture == CONVNET:
        layers, width, side = convnet.body(config.network, channels, config.image_size)
        return nn.Sequential(*layers, *_head(config, width, side, classes)), "random"
    from assay.networks.catalog import classifier

    return classifier(
        config.architecture,
        channels=channels,
        classes=classes,
        weights=config.weights,
        image_size=config.image_size,
        dropout=config.dropout,
        pretrained=pretrained,
    )


def moments(config: Config, mean: Sequence[float], std: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation to normalize by: those of the pretrained weights, if any, else the dataset's."""
    if config.weights == "none":
        return mean, std
    from assay.networks.catalog import normalization

    return normalization(config.architecture)


class Classifier(nn.Module):
    """A network behind its normalization: pixels 0 to 255, [B, C, S, S], to logits [B, K].

    Grey pixels become as many channels as `mean` has values. `thresholds` [K], if an image may show several
    classes, are the probabilities from which a class counts as shown; they are weights like all others.
    """

    mean: Tensor
    std: Tensor
    thresholds: Tensor | None

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], labels: int = 0) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).clamp_min(1e-3).reshape(-1, 1, 1))
        self.register_buffer("thresholds", torch.full((labels,), 0.5) if labels else None)
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network((pixels.float() - self.mean) / self.std)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """[B, K]: of the one class, or of each class by itself."""
        return logits.softmax(dim=1) if self.thresholds is None else logits.sigmoid()


class Served(nn.Module):
    """The classifier as users call it: images of any size, uint8 [B, C, H, W], to probabilities [B, K]."""

    def __init__(self, classifier: Classifier, image_size: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.probabilities(self.classifier(resize(images, self.image_size)))


def resize(images: Tensor, size: int) -> Tensor:
    """[B, C, H, W] to [B, C, size, size] by antialiased bilinear interpolation, in whole steps of 0 to 255.

    Training and serving share it to the bit.
    """
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    pixels: Tensor = resized.round().clamp(0, 255)
    return pixels


def _block(into: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True))
