"""The 1,797 handwritten digits that scikit-learn ships (8x8 grey, values 0 to 16)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from assay.config.plugin import SourceConfig
from assay.data.samples import Scan
from assay.progress import Progress


class Source(SourceConfig):
    kind: Literal["digits"] = "digits"


def scan(source: Source, root: Path, progress: Progress) -> Scan:  # noqa: ARG001 (the contract of importers)
    """All digits, their values scaled to 0..255, as grey PNGs."""
    import hashlib

    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    from assay.data.images import encode_png
    from assay.data.samples import held

    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
    identity = hashlib.sha256(pixels.tobytes() + digits.target.astype("<i4").tobytes()).hexdigest()
    samples = []
    for index, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
        samples.append(held(f"digit-{index:04d}", (int(label),), encode_png(Image.fromarray(image))))
        progress(index + 1, len(pixels), "checked")
    return Scan(samples, [str(name) for name in digits.target_names], [], [], [], identity)
