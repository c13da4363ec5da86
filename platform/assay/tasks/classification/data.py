"""Images and labels of a split, decoded and resized; held in memory where they fit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from assay.data.dataset import Dataset
from assay.data.images import decode
from assay.tasks.classification.config import AugmentConfig, Config
from assay.tasks.classification.model import resize
from assay.train.randomness import Draw

MEMORY = 2**30  # bytes of decoded pixels that a worker may hold


class Images:
    """A split as {"image": [B, C, S, S] of 0 to 255, "label": int64 [B]}."""

    def __init__(self, config: Config, dataset: Dataset, split: str) -> None:
        self.packed = dataset.split(split)
        self.size = config.image_size
        self.channels = dataset.card.channels
        self.augment = config.augment
        self.labels = torch.from_numpy(np.array(self.packed.column("label"), dtype=np.int64))
        self.in_memory = len(self) * self.channels * self.size**2 <= MEMORY
        self.pixels = self._decode_all() if self.in_memory else None

    def __len__(self) -> int:
        return len(self.packed)

    def load(self, indices: NDArray[np.int64], draw: Draw | None) -> dict[str, Tensor]:
        rows = torch.from_numpy(indices)
        images = torch.stack([self._decode(i) for i in indices]) if self.pixels is None else self.pixels[rows]
        if draw is not None and self.augment != AugmentConfig():
            images = augmented(images, self.augment, draw)
        return {"image": images, "label": self.labels[rows]}

    def _decode(self, index: int | np.int64) -> Tensor:
        """uint8 [C, S, S]."""
        image = torch.from_numpy(decode(bytes(self.packed.image(int(index))), self.channels))
        return resize(image[None], self.size)[0].to(torch.uint8)

    def _decode_all(self) -> Tensor:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return torch.stack(list(pool.map(self._decode, range(len(self)))))


def augmented(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """Each image turned, scaled, shifted and mirrored by its own random numbers; borders repeat. Floats 0 to 255."""
    turn, grow, right, down, mirror = torch.from_numpy(2 * draw.uniform("affine", 5) - 1).float().unbind(1)
    angle = turn * config.rotate * torch.pi / 180
    scale = 1 / (1 + grow * config.scale)
    flip = torch.where(mirror < 0, -1.0, 1.0) if config.flip else torch.ones_like(mirror)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    across = torch.stack([cos * flip, -sin, 2 * config.shift * right], 1)
    along = torch.stack([sin * flip, cos, 2 * config.shift * down], 1)
    grid = F.affine_grid(torch.stack([across, along], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
