"""From images of any size to the size of the network and back; training, evaluation and serving share it."""

from __future__ import annotations

import torch
from torch import Tensor

GREY = 114.0
"""The canvas next to and below an image that does not fill it, 0 to 255."""


def letterbox(images: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize [B, C, H, W] to fit `size` (height, width), keeping the aspect, at the top left of a grey canvas.

    Antialiased bilinear interpolation, written as two products with matrices of triangular weights, so that
    `torch.export` follows it through any H and W.

    Returns:
        float [B, C, *size] in whole steps of 0 to 255, and the factor from pixels of the image to those of the canvas.
    """
    high, wide = (torch.scalar_tensor(side, device=images.device) for side in images.shape[-2:])
    scale = torch.minimum(size[0] / high, size[1] / wide)
    down, inside_down = _triangles(images.shape[-2], size[0], scale, high)
    across, inside_across = _triangles(images.shape[-1], size[1], scale, wide)
    resized = down @ images.float() @ across.T
    inside = inside_down[:, None] & inside_across[None]
    return torch.where(inside, resized.round().clamp(0, 255), GREY), scale


def _triangles(into: int, out: int, scale: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [out, into] of the input pixels in each output pixel, and bool [out]: whether the image reaches it."""
    centre = (torch.arange(out, device=scale.device) + 0.5) / scale
    distance = (torch.arange(into, device=scale.device) + 0.5)[None] - centre[:, None]
    weight = (1 - distance.abs() / (1 / scale).clamp_min(1)).clamp_min(0)
    return weight / weight.sum(1, keepdim=True).clamp_min(1e-6), centre < side


def restore(found: Tensor, scale: Tensor, size: Tensor) -> Tensor:
    """Move detections [B, K, 6] (x1, y1, x2, y2, score, class) from the canvas to their images, and cut them there.

    Args:
        scale: as `letterbox` returned it, a number or [B].
        size: (width, height) of the images, [2] or [B, 2].
    """
    boxes = found[..., :4] / scale.reshape(-1, 1, 1)
    limit = torch.cat([size, size], -1).reshape(-1, 1, 4).to(boxes)
    return torch.cat([torch.minimum(boxes.clamp_min(0), limit), found[..., 4:]], -1)
