"""Images and targets of a split, decoded and resized; kept in memory if they fit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from assay.data.dataset import Dataset
from assay.data.images import decode
from assay.data.pack import Packed, numbers
from assay.tasks.classification.augment import augmented, mixed
from assay.tasks.classification.config import AugmentConfig, Config
from assay.tasks.classification.model import resize
from assay.train.randomness import Draw

MEMORY = 2**30  # bytes of decoded pixels that a worker may hold


class Images:
    """A split as {"image": [B, C, S, S] of 0 to 255, "target", "index": int64 [B]}.

    `target` is the class, int64 [B]; or, with several labels or mixed images, how much of each class, [B, K].
    """

    def __init__(self, config: Config, dataset: Dataset, split: str) -> None:
        self.packed = dataset.split(split)
        self.config = config
        self.classes = len(dataset.card.classes)
        self.channels = dataset.card.channels
        if config.multi_label:
            self.targets = several_labels(self.packed, self.classes)
        else:
            self.targets = torch.from_numpy(np.array(self.packed.column("label"), dtype=np.int64))
        self.in_memory = len(self) * self.channels * config.image_size**2 <= MEMORY
        self.pixels = self._decode_all() if self.in_memory else None
        self.of_class = rows_of_classes(self.targets) if config.balance == "sampling" else []

    def __len__(self) -> int:
        return len(self.packed)

    def load(self, indices: NDArray[np.int64], draw: Draw | None) -> dict[str, Tensor]:
        if draw is None:
            images, targets = self._taken(indices, None, "")
            return {"image": images, "target": targets, "index": torch.from_numpy(indices)}
        config = self.config
        chosen = self._drawn(draw, "class") if config.balance == "sampling" else indices
        images, targets = self._taken(chosen, draw, "affine")
        if config.mixup or config.cutmix:
            partners = self._taken(self._drawn(draw, "partner"), draw, "partner/affine")
            images, targets = mixed(
                images.float(), self._soft(targets), partners[0].float(), self._soft(partners[1]), config, draw
            )
        return {"image": images, "target": targets, "index": torch.from_numpy(chosen)}

    def _taken(self, indices: NDArray[np.int64], draw: Draw | None, purpose: str) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(indices)
        images = torch.stack([self._decode(i) for i in indices]) if self.pixels is None else self.pixels[rows]
        if draw is not None and self.config.augment != AugmentConfig():
            images = augmented(images, self.config.augment, draw, purpose)
        return images, self.targets[rows]

    def _drawn(self, draw: Draw, purpose: str) -> NDArray[np.int64]:
        """A random sample for each row: of a random class first, if the classes are to be balanced."""
        numbers = draw.uniform(purpose, 2)
        if self.config.balance != "sampling":
            return (numbers[:, 0] * len(self)).astype(np.int64)
        rows = [self.of_class[int(number)] for number in numbers[:, 0] * len(self.of_class)]
        return np.array([row[int(number * len(row))] for row, number in zip(rows, numbers[:, 1], strict=True)])

    def _soft(self, targets: Tensor) -> Tensor:
        return targets if targets.ndim == 2 else F.one_hot(targets, self.classes).float()

    def _decode(self, index: int | np.int64) -> Tensor:
        """uint8 [C, S, S]."""
        image = torch.from_numpy(decode(bytes(self.packed.image(int(index))), self.channels))
        return resize(image[None], self.config.image_size)[0].to(torch.uint8)

    def _decode_all(self) -> Tensor:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return torch.stack(list(pool.map(self._decode, range(len(self)))))


def rows_of_classes(targets: Tensor) -> list[NDArray[np.int64]]:
    """The rows that show each class, in order; a class that none shows is left out. `targets`: [N] or [N, K]."""
    if targets.ndim == 2:
        return [rows for column in targets.T if len(rows := column.nonzero()[:, 0].numpy())]
    order = np.argsort(targets.numpy(), kind="stable")
    starts = np.unique(targets.numpy()[order], return_index=True)[1]
    return np.split(order, starts[1:])


def several_labels(packed: Packed, classes: int) -> Tensor:
    """float [N, K]: 1 where a sample shows the class."""
    column = packed.column("labels").combine_chunks()
    shown = torch.zeros(len(packed), classes)
    lengths = numbers(column.value_lengths().fill_null(0))
    rows = np.repeat(np.arange(len(packed)), lengths)
    shown[torch.from_numpy(rows), torch.from_numpy(numbers(column.flatten()).astype(np.int64))] = 1
    return shown
