"""The 100 faces and 100 other crops of photographs that scikit-image ships (25x25 grey)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from assay.config.plugin import SourceConfig
from assay.data.samples import Scan
from assay.progress import Progress

FACES = 100
"""How many of the images, the first ones, show a face."""


class Source(SourceConfig):
    kind: Literal["faces"] = "faces"


def scan(source: Source, root: Path, progress: Progress) -> Scan:  # noqa: ARG001 (the contract of importers)
    """All crops, their values scaled from 0..1 to 0..255, as grey PNGs."""
    import hashlib

    import numpy as np
    from PIL import Image

    from assay.data.images import encode_png
    from assay.data.samples import held
    from assay.data.shipped import shipped_file

    pixels = np.round(np.load(shipped_file("skimage/lfw_subset.npy"), allow_pickle=False) * 255).astype(np.uint8)
    samples = []
    for index, image in enumerate(pixels):
        label = 0 if index < FACES else 1
        samples.append(held(f"face-{index:03d}", (label,), encode_png(Image.fromarray(image))))
        progress(index + 1, len(pixels), "checked")
    return Scan(samples, ["face", "other"], [], [], [], hashlib.sha256(pixels.tobytes()).hexdigest())
