"""Sizes of a first experiment that runs anywhere, for the `starter` of a task's config. Imports no torch."""

from __future__ import annotations

import math


def image_size(short_side: int, most: int = 128) -> int:
    """Pixels a side: a power of two from 32 to `most` that loses little; smaller images keep their own size."""
    if short_side < 32:
        return max(short_side, 8)
    return int(min(2 ** int(math.log2(short_side)), most))


def batch_size(train_samples: int, most: int = 64) -> int:
    """At most `most`, and small enough for four batches per epoch if there are samples for them."""
    return int(min(most, max(2, 2 ** int(math.log2(max(train_samples / 4, 2))))))
