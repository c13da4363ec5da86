"""Pictures of an evaluation, for people."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from assay.report.pictures import grid
from assay.task import Picture


def triptychs(contents: Tensor, styles: Tensor, results: Tensor, names: Sequence[str]) -> Picture:
    """Content, style and result of each picture next to each other.

    Args:
        contents, styles, results: uint8 [N, 3, S, S].
        names: of the styles, one for each picture.
    """
    images = [image.permute(1, 2, 0).numpy() for row in zip(contents, styles, results, strict=True) for image in row]
    captions = [word for name in names for word in ("content", name, "result")]
    return Picture("triptychs", grid(images, captions, 3 if len(images) == 3 else 6))
