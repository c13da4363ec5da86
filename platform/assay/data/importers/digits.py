"""The 1,797 handwritten digits that scikit-learn ships (8x8 grey, values 0 to 16)."""

from __future__ import annotations

from typing import Literal

from assay.config import SourceConfig


class Source(SourceConfig):
    kind: Literal["digits"] = "digits"
