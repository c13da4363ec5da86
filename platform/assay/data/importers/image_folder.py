from __future__ import annotations

from typing import Literal

from assay.config import SourceConfig


class Source(SourceConfig):
    kind: Literal["image_folder"] = "image_folder"
    path: str
    sha256: str
