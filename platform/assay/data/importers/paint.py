"""Photographs to paint and textures to paint them with, all shipped with scikit-image and scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from assay.config.plugin import SourceConfig
from assay.data.samples import Scan
from assay.progress import Progress

Texture = Literal["brick", "grass", "gravel", "hubble", "ihc", "moon", "retina"]


class Source(SourceConfig):
    """`styles` are the textures to use; the photographs of things are the contents."""

    kind: Literal["paint"] = "paint"
    styles: tuple[Texture, ...] = Field(("brick", "gravel", "hubble", "ihc"), min_length=1)

    @field_validator("styles")
    @classmethod
    def _each_once(cls, value: tuple[Texture, ...]) -> tuple[Texture, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names a style twice")
        return value


def scan(source: Source, root: Path, progress: Progress) -> Scan:  # noqa: ARG001 (the contract of importers)
    """All contents and the chosen styles as RGB PNGs; the styles are all in `train`."""
    import hashlib

    from assay.data.annotations import STYLE_CLASSES
    from assay.data.images import encode_png
    from assay.data.samples import held
    from assay.data.shipped import PHOTOGRAPHS, shipped_image

    wanted = [(0, name) for name in PHOTOGRAPHS] + [(1, name) for name in sorted(source.styles)]
    samples = []
    for label, name in wanted:
        content = encode_png(shipped_image(name))
        split = "train" if label else None
        samples.append(held(f"{STYLE_CLASSES[label]}/{name}", (label,), content, split=split))
        progress(len(samples), len(wanted), "checked")
    lines = "".join(f"{sample.name} {sample.identity.hex()}\n" for sample in samples)
    return Scan(samples, STYLE_CLASSES, [], [], [], hashlib.sha256(lines.encode()).hexdigest(), "style")
