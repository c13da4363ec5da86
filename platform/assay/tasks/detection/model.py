"""Detectors by name, and a detector as users call it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assay.config.card import Card
from assay.tasks.detection.compact import Compact
from assay.tasks.detection.config import Config
from assay.tasks.detection.letterbox import letterbox, restore
from assay.tasks.detection.reference import Reference, fill

Detector = Compact | Reference


def make_detector(config: Config, card: Card, pretrained: bool) -> tuple[Detector, str]:
    """The configured detector for the images and classes of a dataset, and where its weights came from."""
    if config.whole:
        whole = Reference(config, card.channels, len(card.classes), card.mean, card.std)
        return whole, fill(whole, config, pretrained)
    compact = Compact(config, card.channels, len(card.classes), pretrained)
    return compact, compact.backbone.origin


class Served(nn.Module):
    """A detector as users call it: images of any size, uint8 [B, C, H, W], to float32 [B, K, 6].

    Each row is x1, y1, x2, y2 in pixels of the image, score, class; best first, padded with rows of score 0.
    """

    def __init__(self, detector: Detector, size: tuple[int, int]) -> None:
        super().__init__()
        self.detector = detector
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        pixels, scale = letterbox(images, self.size)
        extent = torch.stack([torch.scalar_tensor(images.shape[3]), torch.scalar_tensor(images.shape[2])])
        return restore(self.detector.detect(pixels), scale, extent)
