"""Random views of training images with their boxes: zoom, crop, mirror, mosaic, colour.

A view is a canvas of one to four tiles; each tile shows a part of an image. All numbers come from a `Draw`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from assay.tasks.detection.config import AugmentConfig
from assay.tasks.detection.letterbox import GREY
from assay.train.randomness import Draw

SEEN = 0.5
"""The share of a box that must remain in a view for it to be learnt."""
GONE = 0.1
"""The share below which a box counts as gone; between the two it is ignored."""
SHORTEST = 2.0
"""The shortest side, in pixels, of a box that is learnt."""
MARGIN = 0.25
"""How near to the border of the canvas, as a share of its side, the tiles of a mosaic may meet."""
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601-2


@dataclass(frozen=True)
class Tile:
    """A region (x1, y1, x2, y2 in whole pixels of the canvas) that shows sample `index`.

    The sample, `extent` (width, height) pixels large, is mirrored if `mirror` (across, down), scaled by `scale`, and
    its top left corner is placed at `offset` (x, y) of the canvas.
    """

    index: int
    region: tuple[int, int, int, int]
    extent: tuple[float, float]
    scale: float
    offset: tuple[float, float]
    mirror: tuple[bool, bool]


def views(
    indices: NDArray[np.int64], extents: NDArray[np.float64], size: tuple[int, int], config: AugmentConfig, draw: Draw
) -> list[list[Tile]]:
    """The tiles of each sample's view. `extents` [N, 2]: (width, height) of every image of the split on its canvas."""
    plan, numbers = draw.uniform("mosaic", 6), draw.uniform("tiles", 20).reshape(-1, 4, 5)
    height, width = size
    made = []
    for index, (choice, right, down, *others), tiles in zip(indices, plan, numbers, strict=True):
        shown, regions = [int(index)], [(0, 0, width, height)]
        if choice < config.mosaic:
            x, y = (round(side * (MARGIN + (1 - 2 * MARGIN) * u)) for side, u in ((width, right), (height, down)))
            shown += [int(u * len(extents)) for u in others]
            regions = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
        made.append([_tile(i, r, extents[i], config, u) for i, r, u in zip(shown, regions, tiles, strict=False)])
    return made


def _tile(
    index: int,
    region: tuple[int, int, int, int],
    extent: NDArray[np.float64],
    config: AugmentConfig,
    numbers: NDArray[np.float64],
) -> Tile:
    """A tile at a random scale and place: a crop if the image is larger than the region, else a shift."""
    zoom, right, down, across, along = numbers
    scale = float(config.zoom ** (2 * zoom - 1))
    room = (region[2] - region[0] - scale * extent[0], region[3] - region[1] - scale * extent[1])
    return Tile(
        index=index,
        region=region,
        extent=(float(extent[0]), float(extent[1])),
        scale=scale,
        offset=(region[0] + float(right * room[0]), region[1] + float(down * room[1])),
        mirror=(bool(config.flip != "none" and across < 0.5), bool(config.flip == "both" and along < 0.5)),
    )


def render(canvas: Tensor, pixels: Tensor, tile: Tile) -> None:
    """Draw into the float canvas [C, H, W] what a tile shows of its image [C, h, w], 0 to 255."""
    x1, y1, x2, y2 = tile.region
    across = _places(x1, x2, tile.offset[0], tile.scale, tile.extent[0], tile.mirror[0], pixels.shape[2])
    down = _places(y1, y2, tile.offset[1], tile.scale, tile.extent[1], tile.mirror[1], pixels.shape[1])
    grid = torch.stack([across.expand(len(down), -1), down[:, None].expand(-1, len(across))], -1)[None]
    sampled = F.grid_sample(pixels[None].float() - GREY, grid, mode="bilinear", align_corners=False)
    canvas[:, y1:y2, x1:x2] = sampled[0] + GREY


def _places(first: int, last: int, offset: float, scale: float, extent: float, mirror: bool, side: int) -> Tensor:
    """Where in an image (-1 to 1 over `side`) the pixels first..last of the canvas come from, along one axis."""
    places = (torch.arange(first, last) + 0.5 - offset) / scale
    return 2 * (extent - places if mirror else places) / side - 1


def moved(boxes: Tensor, tile: Tile) -> tuple[Tensor, Tensor]:
    """Boxes [n, 4] of the image on the canvas, cut at the region, and the share [n] of each that remains."""
    placed = []
    for low, high, extent, mirror, offset in zip(
        boxes[:, :2].T, boxes[:, 2:].T, tile.extent, tile.mirror, tile.offset, strict=True
    ):
        ends = (extent - high, extent - low) if mirror else (low, high)
        placed.append([offset + tile.scale * end for end in ends])
    whole = torch.stack([placed[0][0], placed[1][0], placed[0][1], placed[1][1]], 1)
    x1, y1, x2, y2 = tile.region
    cut = torch.stack([whole[:, 0::2].clamp(x1, x2), whole[:, 1::2].clamp(y1, y2)], 2).reshape(-1, 4)
    return cut, _area(cut) / _area(whole).clamp_min(1e-9)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def verdict(boxes: Tensor, left: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor]:
    """(which moved boxes are kept, which are ignored): bool [n] each."""
    sides = (boxes[:, 2:] - boxes[:, :2]).amin(1)
    kept = (left > GONE) & (sides > 0)
    return kept, ignored | (left < SEEN) | (sides < SHORTEST)


def coloured(images: Tensor, strength: float, draw: Draw) -> Tensor:
    """Float images [B, C, H, W], 0 to 255, each with its own random brightness, contrast and saturation."""
    factors = 1 + strength * torch.from_numpy(2 * draw.uniform("colour", 3) - 1).float()
    brightness, contrast, saturation = factors.reshape(-1, 3, 1, 1, 1).unbind(1)
    images = images * brightness
    images = torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast)
    if images.shape[1] == 3:
        weights = torch.tensor(_LUMINANCE).reshape(3, 1, 1)
        images = torch.lerp((images * weights).sum(1, keepdim=True), images, saturation)
    return images.clamp(0, 255)
