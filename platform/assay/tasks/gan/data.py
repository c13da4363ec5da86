"""Images of a split between -1 and 1, and the random numbers of a step: latents, and those of DiffAugment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from assay.data.dataset import Dataset
from assay.data.images import decode
from assay.tasks.gan.augment import NUMBERS
from assay.tasks.gan.config import Config
from assay.train.randomness import Draw, key

MEMORY = 2**30  # bytes of decoded pixels that a worker may hold
FIXED = key("gan", "evaluation") % 2**31  # the seed of all latents outside training


class Images:
    """A split, in training `repeats` times.

    A batch has `image` [B, C, S, S] in -1..1, `label` int64 [B] (0 if the data have no classes) and `latent` [B, Z];
    in training also `second` [B, Z], the latents of the generator's own step, and `augment` [B, 2, 7], the numbers of
    both steps. Outside training the latents follow from the sample's number alone.
    """

    def __init__(self, config: Config, dataset: Dataset, split: str) -> None:
        self.packed = dataset.split(split)
        self.size = config.image_size
        self.latent = config.latent
        self.channels = dataset.card.channels
        self.repeats = config.repeats if split == "train" else 1
        classes = dataset.card.annotation == "class"
        labels = np.array(self.packed.column("label")) if classes else np.zeros(len(self.packed))
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.in_memory = len(self.packed) * self.channels * self.size**2 <= MEMORY
        self.pixels = self._decode_all() if self.in_memory else None

    def __len__(self) -> int:
        return len(self.packed) * self.repeats

    def load(self, indices: NDArray[np.int64], draw: Draw | None) -> dict[str, Tensor]:
        rows = torch.from_numpy(indices % len(self.packed))
        pixels = torch.stack([self._decode(int(i)) for i in rows]) if self.pixels is None else self.pixels[rows]
        batch = {"image": pixels.float() / 127.5 - 1, "label": self.labels[rows]}
        if draw is None:
            return batch | {"latent": latents(FIXED, indices, self.latent)}
        augment = torch.from_numpy(draw.uniform("augment", 2 * NUMBERS)).float().reshape(-1, 2, NUMBERS)
        both = torch.from_numpy(draw.normal("latent", 2 * self.latent)).float()
        return batch | {"latent": both[:, : self.latent], "second": both[:, self.latent :], "augment": augment}

    def _decode(self, index: int) -> Tensor:
        """uint8 [C, S, S]."""
        return squared(torch.from_numpy(decode(bytes(self.packed.image(index)), self.channels)), self.size)

    def _decode_all(self) -> Tensor:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return torch.stack(list(pool.map(self._decode, range(len(self.packed)))))


def latents(seed: int, indices: NDArray[np.int64], size: int) -> Tensor:
    """[B, size] standard normal, each row by its index."""
    return torch.from_numpy(Draw(seed, 0, indices).normal("latent", size)).float()


def squared(image: Tensor, size: int) -> Tensor:
    """The middle square of uint8 [C, H, W], resized (bilinear, antialiased) to uint8 [C, size, size]."""
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[None, :, top : top + side, left : left + side].float()
    resized = F.interpolate(square, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized[0].round().clamp(0, 255).to(torch.uint8)
