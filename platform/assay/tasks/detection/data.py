"""Images and boxes of a split on the canvas of the network; the pixels are kept in memory if they fit."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.data.dataset import Dataset
from assay.data.images import decode
from assay.tasks.detection.augment import coloured, moved, render, verdict, views
from assay.tasks.detection.config import AugmentConfig, Config
from assay.tasks.detection.letterbox import GREY, letterbox
from assay.train.randomness import Draw

MEMORY = 2**30  # bytes of decoded pixels that a worker may hold
Boxes = tuple[Tensor, Tensor, Tensor]
"""Boxes float [n, 4] (x1, y1, x2, y2), classes int64 [n], ignored bool [n]."""


class Scenes:
    """A split as batches of

    - `image` [B, C, H, W], 0 to 255, on the canvas of `Config.size`;
    - `boxes` [B, M, 4] in pixels of the canvas, `labels` int64 [B, M] (-1 for padding), `ignored` [B, M];
    - without augmentation also `index` [B], `scale` [B] and `extent` [B, 2], the (width, height) of the raw image, to
      map back, and `truth` [B, M, 4], the boxes in pixels of the raw image.
    """

    def __init__(self, config: Config, dataset: Dataset, split: str) -> None:
        self.packed = dataset.split(split)
        self.size = config.size
        self.channels = dataset.card.channels
        self.augment = config.augment
        self.truth = [_boxes(self.packed.row(i)) for i in range(len(self.packed))]
        raw = np.stack([self.packed.column("width"), self.packed.column("height")], 1).astype(np.float32)
        self.raw = raw.reshape(-1, 2)
        sides = np.array(self.size[::-1], dtype=np.float32)
        self.scale = (sides / self.raw).min(1)
        self.in_memory = len(self) * self.channels * self.size[0] * self.size[1] <= MEMORY
        self.pixels = self._decode_all() if self.in_memory and len(self) else None

    def __len__(self) -> int:
        return len(self.packed)

    def load(self, indices: NDArray[np.int64], draw: Draw | None) -> dict[str, Tensor]:
        if draw is not None and self.augment != AugmentConfig():
            return self._views(indices, draw)
        batch = {"image": torch.stack([self._image(int(i)) for i in indices])}
        batch |= padded([self._placed(int(i)) for i in indices])
        if draw is None:
            batch["index"] = torch.from_numpy(np.asarray(indices))
            batch["scale"] = torch.from_numpy(self.scale[indices])
            batch["extent"] = torch.from_numpy(self.raw[indices])
            batch["truth"] = padded([self.truth[i] for i in indices])["boxes"]
        return batch

    def _views(self, indices: NDArray[np.int64], draw: Draw) -> dict[str, Tensor]:
        extents = (self.raw * self.scale[:, None]).astype(np.float64)
        images = torch.full((len(indices), self.channels, *self.size), GREY)
        found: list[Boxes] = []
        for image, tiles in zip(images, views(indices, extents, self.size, self.augment, draw), strict=True):
            parts = []
            for tile in tiles:
                render(image, self._image(tile.index), tile)
                boxes, labels, ignored = self._placed(tile.index)
                boxes, left = moved(boxes, tile)
                kept, ignored = verdict(boxes, left, ignored)
                parts.append((boxes[kept], labels[kept], ignored[kept]))
            found.append(tuple(map(torch.cat, zip(*parts, strict=True))))  # type: ignore[arg-type]
        if self.augment.colour:
            images = coloured(images, self.augment.colour, draw)
        return {"image": images, **padded(found)}

    def _placed(self, index: int) -> Boxes:
        """The boxes of a sample on the canvas."""
        boxes, labels, ignored = self.truth[index]
        return boxes * float(self.scale[index]), labels, ignored

    def _image(self, index: int) -> Tensor:
        return self._decode(index) if self.pixels is None else self.pixels[index]

    def _decode(self, index: int) -> Tensor:
        """uint8 [C, H, W]."""
        image = torch.from_numpy(decode(bytes(self.packed.image(index)), self.channels))
        return letterbox(image[None], self.size)[0][0].to(torch.uint8)

    def _decode_all(self) -> Tensor:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return torch.stack(list(pool.map(self._decode, range(len(self)))))


def _boxes(row: dict[str, list[float]]) -> Boxes:
    return (
        torch.tensor(row["boxes"], dtype=torch.float32).reshape(-1, 4),
        torch.tensor(row["labels"], dtype=torch.int64),
        torch.tensor(row["ignored"], dtype=torch.bool),
    )


def padded(samples: Sequence[Boxes]) -> dict[str, Tensor]:
    """`boxes` [B, M, 4], `labels` [B, M] and `ignored` [B, M], M the most boxes of a sample, but at least 1."""
    most = max([1, *(len(labels) for _, labels, _ in samples)])
    boxes = torch.zeros(len(samples), most, 4)
    labels = torch.full((len(samples), most), -1, dtype=torch.int64)
    ignored = torch.zeros(len(samples), most, dtype=torch.bool)
    for row, parts in enumerate(samples):
        for target, part in zip((boxes, labels, ignored), parts, strict=True):
            target[row, : len(part)] = part
    return {"boxes": boxes, "labels": labels, "ignored": ignored}
