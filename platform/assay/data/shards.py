"""Which samples of a split share a packed file: those whose identities begin with the same bits.

A shard that would be too large is divided in two by the next bit (extendible hashing). So the layout follows from the
images alone, and one new image changes one shard, or replaces it by two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from assay.data.samples import Sample

SHARD_BYTES = 64 * 2**20
"""The most raw content in a shard, in bytes, unless it is all of one image and its copies."""

Shard = tuple[str, Sequence[Sample]]
"""The leading bits that its samples share, as text (empty for a split that is not divided), and its samples."""


def shards(samples: Sequence[Sample], most: int) -> Iterator[Shard]:
    """The shards of a split in the order of their bits, of at most `most` bytes; none is empty, unless the split is.

    `samples` must be sorted by identity; read one after the other, the shards give them in the same order.
    """
    images = [sample.identity for sample in samples]
    before = [0, *accumulate(sample.facts.file_bytes for sample in samples)]
    pending = [("", 0, len(samples))]
    while pending:
        bits, start, stop = pending.pop()
        if before[stop] - before[start] <= most or images[start] == images[stop - 1]:
            yield bits, samples[start:stop]
            continue
        middle = bisect_left(images, _first(f"{bits}1", len(images[start])), start, stop)
        halves = (f"{bits}1", middle, stop), (f"{bits}0", start, middle)
        pending += [half for half in halves if half[1] < half[2]]


def _first(bits: str, length: int) -> bytes:
    """The smallest identity that begins with these bits."""
    return int(bits.ljust(8 * length, "0"), 2).to_bytes(length, "big")
