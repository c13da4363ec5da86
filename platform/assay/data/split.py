"""Stratified splits that depend on the contents and the seed alone, never on names or the order of files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from assay.config import SplitConfig
from assay.data.importers import Sample
from assay.errors import InputError

SPLITS = ("train", "val", "test")


def split_samples(
    samples: Sequence[Sample], classes: Sequence[str], split: SplitConfig, seed: int
) -> dict[str, list[Sample]]:
    """Divide the samples, class by class; each class is in each split, copies of a content are in the same one.

    Raises:
        InputError: a class has fewer than three distinct images.
    """
    owner: dict[str, str] = {}
    distinct: list[set[str]] = [set() for _ in classes]
    for sample in samples:
        distinct[sample.label].add(sample.sha256)
    for name, contents in zip(classes, distinct, strict=True):
        if len(contents) < len(SPLITS):
            raise InputError(
                f"class {name!r} has {len(contents)} distinct good images; at least {len(SPLITS)} are needed, "
                "one for each of train, val and test"
            )
        ordered = sorted(contents, key=lambda sha: hashlib.sha256(f"{seed}:{sha}".encode()).digest())
        first, second = _cuts(len(ordered), split)
        owner.update(dict.fromkeys(ordered[:first], "train"))
        owner.update(dict.fromkeys(ordered[first:second], "val"))
        owner.update(dict.fromkeys(ordered[second:], "test"))
    parts: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    for sample in sorted(samples, key=lambda sample: sample.name):
        parts[owner[sample.sha256]].append(sample)
    return parts


def _cuts(count: int, split: SplitConfig) -> tuple[int, int]:
    """Where train ends and where val ends among `count` contents; no part is empty."""
    first = min(max(round(count * split.train), 1), count - 2)
    second = min(max(round(count * (split.train + split.val)), first + 1), count - 1)
    return first, second


def class_counts(samples: Sequence[Sample], classes: Sequence[str]) -> dict[str, int]:
    counts = Counter(sample.label for sample in samples)
    return {name: counts[label] for label, name in enumerate(classes)}
