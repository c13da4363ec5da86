"""Photographs and styles: random crops to learn from, whole pictures to evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from assay.data.dataset import Dataset
from assay.data.images import decode
from assay.data.pack import Packed
from assay.errors import InputError, known
from assay.tasks.style_transfer.config import Config
from assay.train.randomness import Draw

MEMORY = 2**30  # bytes of decoded photographs that a worker may hold
CONTENT, STYLE = 0, 1


@dataclass(frozen=True)
class Images:
    """The images of one label in a split."""

    packed: Packed
    rows: Sequence[int]

    @classmethod
    def of(cls, dataset: Dataset, split: str, label: int) -> Images:
        packed = dataset.split(split)
        return cls(packed, np.flatnonzero(packed.column("label") == label).tolist())

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        names = self.packed.column("name").to_pylist()
        return [names[row] for row in self.rows]

    def pixels(self, number: int) -> Tensor:
        """uint8 [3, H, W]."""
        return torch.from_numpy(decode(bytes(self.packed.image(self.rows[number])), 3))


class Crops:
    """Training samples of the network: {"content": uint8 [B, 3, C, C], "style": int64 [B], "shift": int64 [B, 2]}.

    An epoch has `crops_per_image` samples of each photograph: a square window, mirrored in half of the cases, at the
    scale of `image_size` or enlarged up to 1 + `zoom`; its style; and the shift at which the losses see it.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self.config = config
        self.images = Images.of(dataset, "train", CONTENT)
        self.styles = len(chosen_styles(config, dataset))
        longest = round(config.image_size * (1 + config.zoom))
        sides = [self.images.packed.row(row) for row in self.images.rows]
        area = sum(longest**2 * max(s["width"], s["height"]) / min(s["width"], s["height"]) for s in sides)
        self.in_memory = 3 * area <= MEMORY
        self.shorter = longest
        self.held = self._all() if self.in_memory else None

    def __len__(self) -> int:
        return len(self.images) * self.config.crops_per_image

    def load(self, indices: NDArray[np.int64], draw: Draw | None) -> dict[str, Tensor]:
        draw = draw or Draw(0, 0, indices)
        places = draw.uniform("crop", 4)
        crops = [self._crop(int(i) % len(self.images), place) for i, place in zip(indices, places, strict=True)]
        style = (draw.uniform("style") * self.styles).astype(np.int64)[:, 0]
        return {"content": torch.stack(crops), "style": torch.from_numpy(style), "shift": shifts(draw, 8)}

    def _crop(self, number: int, place: NDArray[np.float64]) -> Tensor:
        photograph = self._photograph(number) if self.held is None else self.held[number]
        down, right, zoom, mirror = place
        height, width = photograph.shape[1:]
        window = min(height, width) * self.config.crop_size / self.config.image_size / (1 + zoom * self.config.zoom)
        side = max(1, round(window))
        top, left = round(down * (height - side)), round(right * (width - side))
        crop = resized(photograph[:, top : top + side, left : left + side], self.config.crop_size)
        return crop.flip(2) if mirror < 0.5 else crop

    def _photograph(self, number: int) -> Tensor:
        """No larger than the closest view needs."""
        pixels = self.images.pixels(number)
        return resized(pixels, self.shorter) if min(pixels.shape[1:]) > self.shorter else pixels

    def _all(self) -> list[Tensor]:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return list(pool.map(self._photograph, range(len(self.images))))


class Pairs:
    """Each photograph of a split in each style: {"content": uint8 [B, 3, S, S], "style": int64 [B]}."""

    in_memory = True

    def __init__(self, contents: Tensor, styles: int) -> None:
        self.contents = contents
        self.styles = styles

    def __len__(self) -> int:
        return len(self.contents) * self.styles

    def load(self, indices: NDArray[np.int64], draw: Draw | None) -> dict[str, Tensor]:  # noqa: ARG002
        numbers = torch.from_numpy(indices)
        return {"content": self.contents[numbers // self.styles], "style": numbers % self.styles}


class Views:
    """Training samples of the optimization: {"shift": int64 [B, 2]}, one a step."""

    in_memory = True

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def load(self, indices: NDArray[np.int64], draw: Draw | None) -> dict[str, Tensor]:
        return {"shift": shifts(draw or Draw(0, 0, indices), 2)}


def shifts(draw: Draw, places: int) -> Tensor:
    """int64 [B, 2] from 0 to places - 1."""
    return torch.from_numpy((places * draw.uniform("shift", 2)).astype(np.int64))


def resized(pixels: Tensor, shorter: int) -> Tensor:
    """uint8 [3, H, W] to the same with this shorter side, by antialiased bilinear interpolation."""
    height, width = pixels.shape[1:]
    scale = shorter / min(height, width)
    size = [max(shorter, round(height * scale)), max(shorter, round(width * scale))]
    if [height, width] == size:
        return pixels
    large = F.interpolate(pixels[None].float(), size, mode="bilinear", antialias=True, align_corners=False)
    return large[0].round().clamp(0, 255).to(torch.uint8)


def fitted(pixels: Tensor, size: int) -> Tensor:
    """uint8 [3, H, W] to [3, size, size]: the shorter side resized, the middle of the longer one kept."""
    whole = resized(pixels, size)
    top, left = (whole.shape[1] - size) // 2, (whole.shape[2] - size) // 2
    return whole[:, top : top + size, left : left + size].contiguous()


def whole_pictures(images: Images, size: int) -> Tensor:
    """uint8 [N, 3, size, size]."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        pictures = list(pool.map(lambda number: fitted(images.pixels(number), size), range(len(images))))
    return torch.stack(pictures) if pictures else torch.empty(0, 3, size, size, dtype=torch.uint8)


def chosen_styles(config: Config, dataset: Dataset) -> Images:
    """The style that `task.style` names, else all. Raises `InputError` for an unknown name."""
    styles = Images.of(dataset, "train", STYLE)
    if config.style is None:
        return styles
    if config.style not in styles.names:
        raise InputError(f"task.style: {known('style', config.style, styles.names)}")
    return Images(styles.packed, [styles.rows[styles.names.index(config.style)]])


def chosen_content(config: Config, dataset: Dataset) -> tuple[str, Tensor]:
    """The name and the pixels, uint8 [1, 3, S, S], of the photograph that is painted by optimization."""
    contents = {split: Images.of(dataset, split, CONTENT) for split in ("val", "test", "train")}
    names = [name for images in contents.values() for name in images.names]
    wanted = names[0] if config.content is None and names else config.content
    for images in contents.values():
        if wanted in images.names:
            number = images.names.index(wanted)
            return wanted, fitted(images.pixels(number), config.image_size)[None]
    raise InputError(f"task.content: {known('content', str(wanted), names)}")
