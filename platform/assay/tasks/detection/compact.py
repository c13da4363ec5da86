"""Assay's own detector: a pretrained backbone, a top-down neck and one light head for all maps.

The form is that of RetinaNet and FCOS (Lin et al., ICCV 2017; Tian et al., ICCV 2019) with one square anchor a place;
the score of a class is also the quality of the box (Li et al., "Generalized Focal Loss", NeurIPS 2020, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.networks import catalog, convnet
from assay.networks.libraries import import_torchvision
from assay.networks.shape import CONVNET
from assay.tasks.detection.assign import assign, overlaps
from assay.tasks.detection.config import Config

Backbone = catalog.FeatureMaps | convnet.Maps
Moments = tuple[tuple[float, ...], tuple[float, ...]]
GREY: Moments = (0.5,) * 3, (0.25,) * 3
"""Normalizes the pixels for a network that starts at random."""
PRIOR = 0.01
"""The score of every class at the start (Lin et al., "Focal Loss for Dense Object Detection", section 4.1)."""
LARGEST = 5.0
"""The largest logarithm of the factor between a box and its anchor: about 148."""
SHARPNESS = 2.0  # the exponent of the quality focal loss
GROUP = 16  # channels that are normalized together
CANDIDATES = 300  # boxes of an image that compete
ROUNDS = 12  # of suppression; longer chains of overlapping boxes do not occur in practice


class Compact(nn.Module):
    """Pixels 0 to 255, [B, C, H, W] of the configured size, to raw scores [B, A, K] and offsets [B, A, 4]."""

    mean: Tensor
    std: Tensor
    anchors: Tensor

    def __init__(self, config: Config, channels: int, classes: int, pretrained: bool) -> None:
        super().__init__()
        self.config = config
        self.backbone, moments = _backbone(config, channels, pretrained)
        mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in moments)
        self.register_buffer("mean", 255 * (mean if channels == 3 else mean.mean(0, keepdim=True)))
        self.register_buffer("std", 255 * (std if channels == 3 else std.mean(0, keepdim=True)))
        if config.weights != "none":
            hold_first_layers(self.backbone, channels)
        width = config.width
        self.lateral = nn.ModuleList(_block(into, width, 1) for into in self.backbone.channels)
        self.smooth = nn.ModuleList(_block(width, width, 3) for _ in config.strides)
        self.scoring = nn.Sequential(*(_block(width, width, 3) for _ in range(config.depth)))
        self.placing = nn.Sequential(*(_block(width, width, 3) for _ in range(config.depth)))
        self.score = nn.Conv2d(width, classes, 3, padding=1)
        self.offset = nn.Conv2d(width, 4, 3, padding=1)
        for layer in (self.score, self.offset):
            nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(self.score.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]
        anchors = [_anchors(config.size, stride, config.anchor) for stride in config.strides]
        self.levels = [len(part) for part in anchors]
        self.register_buffer("anchors", torch.cat(anchors), persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        images = ((pixels.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps = [lateral(m) for lateral, m in zip(self.lateral, self.backbone(images), strict=True)]
        for level in range(len(maps) - 1, 0, -1):
            maps[level - 1] = maps[level - 1] + F.interpolate(maps[level], scale_factor=2.0, mode="nearest")
        maps = [smooth(m) for smooth, m in zip(self.smooth, maps, strict=True)]
        scores = [_flat(self.score(self.scoring(m))) for m in maps]
        offsets = [_flat(self.offset(self.placing(m))) for m in maps]
        return torch.cat(scores, 1).float(), torch.cat(offsets, 1).float()

    def train(self, mode: bool = True) -> Compact:
        """The statistics of a pretrained backbone do not change; all but its first weights, scales and shifts learn."""
        super().train(mode)
        if self.config.weights != "none":
            hold_statistics(self.backbone)
        return self

    def losses(
        self, wrapped: nn.Module, batch: Mapping[str, Tensor], average: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """`loss` and its parts. `average` returns the mean of a number over the workers."""
        scores, offsets = wrapped(batch["image"])
        given = assign(self.anchors, self.levels, batch["boxes"], batch["labels"], batch["ignored"])
        positive = given.box >= 0
        image, place = positive.nonzero(as_tuple=True)
        box = given.box[image, place]
        predicted = decode(self.anchors[place], offsets[image, place])
        actual = batch["boxes"][image, box]
        quality = _pairwise(predicted.detach(), actual)
        target = torch.zeros_like(scores)
        target[image, place, batch["labels"][image, box]] = quality.to(target.dtype)
        classification = (quality_focal(scores, target) * given.counts[..., None]).sum()
        import_torchvision()
        from torchvision.ops import generalized_box_iou_loss

        placement = generalized_box_iou_loss(predicted, actual, reduction="sum")
        count = average(positive.sum().double()).clamp_min(1.0).float()
        parts = {"class_loss": classification / count, "box_loss": 2 * placement / count}
        return {"loss": parts["class_loss"] + parts["box_loss"], **parts}

    def detect(self, pixels: Tensor) -> Tensor:
        """[B, detections, 6]: x1, y1, x2, y2 in pixels of the canvas, score, class; best first, padded with score 0."""
        scores, offsets = self(pixels)
        scores = scores.sigmoid()
        classes = scores.shape[2]
        most = min(CANDIDATES, scores.shape[1] * classes)
        best, which = scores.flatten(1).topk(most, dim=1)
        place, label = which // classes, which % classes
        boxes = decode(self.anchors[place], offsets.gather(1, place[..., None].expand(-1, -1, 4)))
        best = best * survivors(boxes, label, self.config.overlap)
        order = best.topk(min(self.config.detections, most), dim=1)
        rows = torch.cat([boxes, label[..., None].to(boxes.dtype)], 2)
        rows = rows.gather(1, order.indices[..., None].expand(-1, -1, 5))
        found = torch.cat([rows[..., :4], order.values[..., None], rows[..., 4:]], 2)
        return F.pad(found, (0, 0, 0, self.config.detections - found.shape[1]))


def _backbone(config: Config, channels: int, pretrained: bool) -> tuple[Backbone, Moments]:
    """The network of the maps, and the mean and standard deviation of the colours in its input."""
    if config.architecture == CONVNET:
        return convnet.Maps(config.network, channels, config.strides), GREY
    maps = catalog.feature_maps(
        config.architecture, channels=channels, weights=config.weights, pretrained=pretrained, strides=config.strides
    )
    return maps, catalog.normalization(config.architecture)


def hold_statistics(backbone: nn.Module) -> None:
    """Keep the statistics of batch normalization: small batches of another kind of image would spoil them."""
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def hold_first_layers(backbone: nn.Module, channels: int) -> None:
    """Fix the layers whose maps have half the side or more: edges and colours need no further learning.

    They take the longest to learn, as their maps are the largest: a fifth of a step with EfficientNet-Lite0.
    """
    side = 64

    def hold(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.shape[-1] * 2 >= side:
            module.requires_grad_(False)

    learning = [module for module in backbone.modules() if any(True for _ in module.parameters(recurse=False))]
    hooks = [module.register_forward_hook(hold) for module in learning]
    training = backbone.training
    with torch.no_grad():
        backbone.eval()(torch.zeros(1, channels, side, side))
    backbone.train(training)
    for hook in hooks:
        hook.remove()


def quality_focal(logits: Tensor, target: Tensor) -> Tensor:
    """The quality focal loss, element by element (Li et al., equation 5)."""
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return loss * (target - logits.sigmoid()).abs().pow(SHARPNESS)


def decode(anchors: Tensor, offsets: Tensor) -> Tensor:
    """Boxes of offsets from their anchors, [..., 4] each: (x, y) in sides, (width, height) as logarithms of factors."""
    side = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., 2:] + anchors[..., :2]) / 2 + offsets[..., :2] * side
    half = side * offsets[..., 2:].clamp(-LARGEST, LARGEST).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def survivors(boxes: Tensor, label: Tensor, overlap: float) -> Tensor:
    """bool [B, k]: which of the boxes [B, k, 4], best first, outlive the better ones of their class.

    Greedy suppression as a fixed point, for batches and tracing (Zheng et al., "Enhancing Geometric Factors in Model
    Learning and Inference for Object Detection and Instance Segmentation", 2021, section III-C, "Cluster-NMS").
    """
    rival = (overlaps(boxes, boxes) > overlap) & (label[:, :, None] == label[:, None])
    rival = rival.float().triu(1)
    alive = torch.ones_like(label, dtype=torch.float32)
    for _ in range(ROUNDS):
        alive = ((alive[:, None] @ rival)[:, 0] == 0).float()
    return alive > 0


def _pairwise(one: Tensor, other: Tensor) -> Tensor:
    """IoU [n] of boxes [n, 4], row by row."""
    return overlaps(one[:, None], other[:, None])[:, 0, 0]


def _anchors(size: tuple[int, int], stride: int, sides: float) -> Tensor:
    """[h * w, 4]: a square, `sides` strides wide, around the middle of each place of a map."""
    y, x = (stride * (torch.arange(side // stride) + 0.5) for side in size)
    centre = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1).reshape(-1, 2)
    half = sides * stride / 2
    return torch.cat([centre - half, centre + half], 1)


def _flat(maps: Tensor) -> Tensor:
    """[B, n, h, w] to [B, h * w, n]."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def _block(into: int, out: int, side: int) -> nn.Module:
    convolution = nn.Conv2d(into, out, side, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(out // GROUP, out), nn.SiLU(inplace=True))
