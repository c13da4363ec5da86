"""Which places of the maps answer for which box: adaptive training sample selection.

Zhang, Chi, Yao, Lei and Li, "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training
Sample Selection", CVPR 2020, algorithm 1. It depends on the boxes alone, not on the network's predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEAREST = 9
"""Places of each map, nearest to the centre of a box, that may answer for it (k of the paper)."""


@dataclass(frozen=True)
class Assigned:
    """For each of A places of B images: the number of its box (-1: background), and whether it counts at all."""

    box: Tensor
    counts: Tensor


def assign(anchors: Tensor, levels: list[int], boxes: Tensor, labels: Tensor, ignored: Tensor) -> Assigned:
    """Give places to boxes.

    Args:
        anchors: [A, 4], the box that each place starts from; `levels` are the numbers of places of each map.
        boxes: [B, M, 4]; `labels` [B, M] is -1 for padding; `ignored` [B, M].
    """
    real = (labels >= 0) & ~ignored
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    within = (centre >= boxes[:, :, None, :2]).all(-1) & (centre <= boxes[:, :, None, 2:]).all(-1)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    distance = (middle[:, :, None] - centre).square().sum(-1)
    near = torch.cat([_nearest(part) for part in torch.split(distance, levels, 2)], 2)
    overlap = overlaps(boxes, anchors.expand(len(boxes), -1, -1))
    chosen = near & within & (overlap >= _threshold(overlap, near))
    lost = ~chosen.any(2, keepdim=True)  # a box that holds the centre of no place: its best one all the same
    best = torch.zeros_like(chosen).scatter_(2, overlap.argmax(2, keepdim=True), True)
    chosen = (chosen | (lost & best)) & real[..., None]
    value, box = overlap.masked_fill(~chosen, -1).max(1)
    positive = value >= 0
    hidden = (within & (ignored & (labels >= 0))[..., None]).any(1)
    return Assigned(torch.where(positive, box, -1), positive | ~hidden)


def _nearest(distance: Tensor) -> Tensor:
    """bool [B, M, a]: the places of one map that are nearest."""
    places = distance.topk(min(NEAREST, distance.shape[2]), dim=2, largest=False).indices
    return torch.zeros_like(distance, dtype=torch.bool).scatter_(2, places, True)


def _threshold(overlap: Tensor, near: Tensor) -> Tensor:
    """[B, M, 1]: mean plus standard deviation of the IoU of the candidates."""
    count = near.sum(2, keepdim=True)
    mean = (overlap * near).sum(2, keepdim=True) / count
    variance = ((overlap - mean).square() * near).sum(2, keepdim=True) / (count - 1).clamp_min(1)
    return mean + variance.sqrt()


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """IoU [B, n, m] of boxes [B, n, 4] and [B, m, 4]; 0 if both are empty."""
    low = torch.maximum(one[:, :, None, :2], other[:, None, :, :2])
    high = torch.minimum(one[:, :, None, 2:], other[:, None, :, 2:])
    common = (high - low).clamp_min(0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1) for boxes in (one, other)]
    return common / (areas[0][:, :, None] + areas[1][:, None] - common).clamp_min(1e-9)
