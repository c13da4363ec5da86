"""Real handwritten digits on crops of real photographs, with exact boxes: detection that is learnt in minutes.

The digits (scikit-learn, 8x8) and the photographs (scikit-image, scikit-learn) are divided before a scene is made: no
digit and no part of a photograph is in two splits. Each scene is a pure function of the seed and its number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assay.config.plugin import SourceConfig
from assay.data.samples import Box, Scan, held
from assay.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

BACKGROUNDS = ("astronaut", "chelsea", "china", "coffee", "flower", "motorcycle", "rocket")
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
STRIPES = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
"""The part of each photograph's width that a split sees; even the narrow ones have room for every size of crop."""
CROP = (48, 90)
"""The side of a crop, in pixels of the photograph; it is drawn from the same range for all splits."""
HEIGHT = (24 / 128, 56 / 128)
"""The height of a digit's ink, as a fraction of the scene's side."""
MOST = 4
OVERLAP = 0.05
"""The most digits in a scene, and the intersection over union that their boxes stay below."""
CONTRAST = 130.0
"""The distance in RGB that nine tenths of the background behind a digit should have from its colour."""
KEPT = 2**27
"""Bytes of finished scenes that are kept in memory until they are packed."""
_DIVISION = 2**63


class Source(SourceConfig):
    """`scenes` pictures of `size` pixels a side, already divided: 70 % train, 10 % val, 20 % test."""

    kind: Literal["digit_scenes"] = "digit_scenes"
    scenes: int = Field(1500, ge=10, le=100_000)
    size: int = Field(128, ge=32, le=1024)
    seed: int = Field(0, ge=0, lt=2**31)


def scan(source: Source, root: Path, progress: Progress) -> Scan:  # noqa: ARG001 (the contract of importers)
    """Make each scene to learn its content; those not kept in memory are made again when they are packed."""
    import hashlib

    material = _material(source.seed)
    total, samples, kept = hashlib.sha256(), [], 0
    for index in range(source.scenes):
        split = _split(index, source.scenes)
        content, boxes = _scene(source, material[split], index)
        labels = tuple(sorted({box.label for box in boxes}))
        sample = held(f"scene-{index:05d}", labels, content, boxes, split)
        total.update(f"{sample.identity.hex()} {boxes}\n".encode())
        kept += len(content)
        if kept > KEPT:
            sample = replace(sample, read=partial(_content, source, material[split], index))
        samples.append(sample)
        progress(index + 1, source.scenes, "made")
    return Scan(samples, [str(digit) for digit in range(10)], [], [], [], total.hexdigest(), "boxes")


@dataclass(frozen=True)
class _Material:
    """What the scenes of one split are made of: digits [n, 8, 8] of 0 to 16, their labels [n], RGB photographs."""

    digits: Array
    labels: Array
    photographs: list[Array]


def _split(index: int, scenes: int) -> str:
    train, val = round(scenes * SHARES["train"]), round(scenes * SHARES["val"])
    return "train" if index < train else "val" if index < train + val else "test"


def _material(seed: int) -> dict[str, _Material]:
    import numpy as np
    from sklearn.datasets import load_digits

    from assay.data.shipped import shipped_image

    digits = load_digits()
    rng = np.random.Generator(np.random.Philox(key=[seed, _DIVISION]))
    rows: dict[str, list[int]] = {name: [] for name in SHARES}
    for label in range(10):
        order = rng.permutation(np.flatnonzero(digits.target == label))
        first = round(len(order) * SHARES["train"])
        second = first + round(len(order) * SHARES["val"])
        for name, part in zip(SHARES, np.split(order, [first, second]), strict=True):
            rows[name] += part.tolist()
    photographs = [np.asarray(shipped_image(name)) for name in BACKGROUNDS]
    return {
        name: _Material(
            digits.images[rows[name]],
            digits.target[rows[name]],
            [photo[:, round(photo.shape[1] * start) : round(photo.shape[1] * stop)] for photo in photographs],
        )
        for name, (start, stop) in STRIPES.items()
    }


def _content(source: Source, material: _Material, index: int) -> bytes:
    return _scene(source, material, index)[0]


def _scene(source: Source, material: _Material, index: int) -> tuple[bytes, tuple[Box, ...]]:
    """The PNG of a scene, and the boxes of its digits, tight around the ink."""
    import numpy as np
    from PIL import Image

    from assay.data.images import encode_png

    rng = np.random.Generator(np.random.Philox(key=[source.seed, index]))
    canvas = _background(rng, material.photographs, source.size)
    boxes: list[Box] = []
    for _ in range(int(rng.integers(1, MOST + 1))):
        row = int(rng.integers(len(material.digits)))
        alpha = _ink(material.digits[row], source.size * rng.uniform(*HEIGHT))
        box = _place(rng, alpha, int(material.labels[row]), source.size, boxes)
        if box is None:
            continue
        window = canvas[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)]
        window += alpha[..., None] * (_colour(rng, window[alpha > 0]) - window)
        boxes.append(box)
    return encode_png(Image.fromarray(np.round(canvas).astype(np.uint8))), tuple(boxes)


def _background(rng: np.random.Generator, photographs: list[Array], size: int) -> Array:
    """Floats [size, size, 3] of 0 to 255: a square of a photograph, resized and, half of the time, mirrored."""
    import numpy as np
    from PIL import Image

    photo = photographs[int(rng.integers(len(photographs)))]
    side = int(rng.integers(CROP[0], CROP[1] + 1))
    top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    crop = photo[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.asarray(Image.fromarray(np.ascontiguousarray(crop)).resize((size, size)), dtype=np.float64).copy()


def _ink(digit: Array, height: float) -> Array:
    """The opacity of an enlarged digit, floats of 0 to 1, cropped so that each border row and column has some ink."""
    import numpy as np
    from PIL import Image

    rows, columns = _extent(digit)
    cell = height / (rows.stop - rows.start)
    padded = np.pad(digit[rows, columns].astype(np.float32) / 16, 1)  # so that the strokes fade out at the edges
    shape = (max(round(padded.shape[1] * cell), 1), max(round(padded.shape[0] * cell), 1))
    smooth = np.asarray(Image.fromarray(padded).resize(shape, Image.Resampling.BICUBIC))
    alpha = np.clip((smooth - 0.28) / 0.4, 0, 1)
    alpha[alpha < 0.1] = 0  # too faint to see
    return np.asarray(alpha[_extent(alpha)], dtype=np.float64)


def _extent(values: Array) -> tuple[slice, slice]:
    """The rows and the columns from the first to the last value that is not zero."""
    import numpy as np

    found = [np.flatnonzero(values.any(axis=axis)) for axis in (1, 0)]
    return slice(int(found[0][0]), int(found[0][-1]) + 1), slice(int(found[1][0]), int(found[1][-1]) + 1)


def _place(rng: np.random.Generator, alpha: Array, label: int, size: int, others: list[Box]) -> Box | None:
    """A box for the ink that hardly overlaps the others; None if forty tries find no room."""
    height, width = alpha.shape
    if height > size or width > size:
        return None
    for _ in range(40):
        left, top = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
        box = Box(left, top, left + width, top + height, label)
        if all(_overlap(box, other) < OVERLAP for other in others):
            return box
    return None


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    across, along = min(a.x2, b.x2) - max(a.x1, b.x1), min(a.y2, b.y2) - max(a.y1, b.y1)
    common = max(across, 0) * max(along, 0)
    return common / ((a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1) - common)


def _colour(rng: np.random.Generator, behind: Array) -> Array:
    """An RGB colour that stands out from the pixels [n, 3] behind it: the first good one of sixteen, else the best."""
    import numpy as np

    colours = rng.uniform(0, 255, (16, 3))
    distances = np.linalg.norm(colours[:, None] - behind[None], axis=2)
    contrast = np.percentile(distances, 10, axis=1)
    good = np.flatnonzero(contrast >= CONTRAST)
    return np.asarray(colours[good[0] if len(good) else int(contrast.argmax())])
