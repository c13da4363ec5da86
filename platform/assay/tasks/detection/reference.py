"""torchvision's whole detectors, with the interface of the compact one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from assay.errors import InputError
from assay.networks import weights as stored
from assay.networks.libraries import import_torchvision
from assay.tasks.detection.compact import hold_statistics
from assay.tasks.detection.config import Config

FIXED = ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large")
"""Detectors that resize every image to their own size."""
BACKBONES = {"resnet50": "", "mobilenet_v3_large": "features."}
"""The classification networks inside, and what their tensors' names begin with outside."""
HEADS = ("roi_heads.box_predictor", "head.classification_head.module_list", "head.classification_head.cls_logits")
"""The layers whose shapes depend on the number of classes."""


class Reference(nn.Module):
    """A detector of torchvision. Class k of Assay is k + 1 there, where 0 is the background.

    In training it draws proposals by torch's own generator, divides some losses by counts over the samples of one
    worker, and cannot ignore boxes: ignored ones are left out of its targets.
    """

    def __init__(self, config: Config, channels: int, classes: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        import_torchvision()
        from torchvision.models import get_model

        name = config.architecture.partition(":")[2]
        options: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": classes + 1}
        if name not in FIXED:
            options |= {"min_size": min(config.size), "max_size": max(config.size)}
        if config.weights == "none":
            options |= {"image_mean": mean * (3 // channels), "image_std": std * (3 // channels)}
        self.detector = get_model(name, **options)
        self.config = config

    @property
    def backbone(self) -> nn.Module:
        return self.detector.backbone  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Reference:
        """The statistics of a pretrained backbone do not change."""
        super().train(mode)
        if self.config.weights != "none":
            hold_statistics(self.backbone)
        return self

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """In training the losses by name, else a dict of `boxes`, `scores` and `labels` for each image."""
        return self.detector(images, targets)

    def losses(
        self,
        wrapped: nn.Module,
        batch: Mapping[str, Tensor],
        average: Callable[[Tensor], Tensor],  # noqa: ARG002 (these detectors count for themselves)
    ) -> dict[str, Tensor]:
        """`loss` and its parts."""
        targets = []
        for boxes, labels, ignored in zip(batch["boxes"], batch["labels"], batch["ignored"], strict=True):
            learnt = (labels >= 0) & ~ignored
            targets.append({"boxes": boxes[learnt], "labels": labels[learnt] + 1})
        parts = {
            name.removeprefix("loss_") + "_loss": loss
            for name, loss in wrapped(list(self._images(batch["image"])), targets).items()
        }
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def detect(self, pixels: Tensor) -> Tensor:
        """[B, detections, 6]: x1, y1, x2, y2 in pixels of the canvas, score, class; best first, padded with score 0."""
        found = pixels.new_zeros((len(pixels), self.config.detections, 6), dtype=torch.float32)
        for target, answer in zip(found, self(list(self._images(pixels))), strict=True):
            rows = torch.cat(
                [answer["boxes"], answer["scores"][:, None], answer["labels"][:, None].float() - 1], 1
            ).float()
            rows = rows[rows[:, 4].argsort(descending=True, stable=True)][: len(target)]
            target[: len(rows)] = rows
        return found

    def _images(self, pixels: Tensor) -> Tensor:
        images = pixels.float() / 255
        return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def fill(model: Reference, config: Config, pretrained: bool) -> str:
    """Load a detector's pretrained weights; returns where they came from.

    `imagenet` fills the classification network inside a detector with a feature pyramid; a file fills the whole
    detector, except the layers that depend on the number of classes if that differs.

    Raises:
        InputError: they are missing, or do not fit.
    """
    if config.weights == "none":
        return "random"
    if not pretrained:
        return "trained before"
    if config.weights == "imagenet":
        return _fill_backbone(model, config.architecture)
    state, origin = stored.load(config.architecture, config.weights, model.detector.state_dict(), head=HEADS)
    model.detector.load_state_dict(state, strict=False)
    return origin


def _fill_backbone(model: Reference, architecture: str) -> str:
    from torchvision.models import get_model

    name = next((name for name in BACKBONES if f"{name}_" in architecture and "fpn" in architecture), None)
    if name is None:
        raise InputError(f"task.weights: imagenet fits no part of {architecture}: set it to none or to a file")
    state, origin = stored.load(f"torchvision:{name}", "imagenet", get_model(name, weights=None).state_dict())
    body = model.detector.backbone.body
    body.load_state_dict({key: state[BACKBONES[name] + key] for key in body.state_dict()})
    return origin
