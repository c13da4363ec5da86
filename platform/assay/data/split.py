"""Stratified splits that follow from the pixels of the images, never from names or the order of files.

Each image has a place in 0..1 that follows from its pixels alone, and the test split is what lies above a cut. So
another seed moves nothing between test and the rest, and other fractions move only what lies between the old cut and
the new one. Another image moves none either, but in a class of few: if none lies above the cut, the highest one is the
test image, until another lies higher. A second place, which also follows from the seed, divides the rest.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from assay.config.card import SplitConfig
from assay.data.annotations import KINDS
from assay.data.samples import Sample, Scan
from assay.errors import InputError

SPLITS = ("train", "val", "test")
_STRONGEST = ("test", "val", "train", "trainval", None)
"""If a source puts copies of one image into different splits, the first of these wins: test sets never change."""
_REST = -1
"""The stratum of images that show nothing, and of classes too rare for one of their own."""


@dataclass(frozen=True)
class Division:
    """The samples of each split, sorted by identity and name; what was left out (as in a scan), and warnings."""

    parts: dict[str, list[Sample]]
    rejected: list[dict[str, str]]
    warnings: list[str]


def split_samples(scan: Scan, split: SplitConfig, seed: int) -> Division:
    """Divide the samples of a scan; copies of an image always go into the same split.

    What the source itself puts into a split stays there. A part of `trainval` becomes `val`, in the ratio of `split`.
    Everything else is divided among all three. The fractions are met on average; in each stratum, every split gets at
    least one image if there are three. Strata are the classes, or each image's rarest class if images may show several.

    Args:
        seed: divides train from val; the test split does not depend on it.

    Raises:
        InputError: an exclusive class has fewer than three distinct images to divide, or a split is empty.
    """
    kept, rejected = _settle(scan.samples)
    strata = _strata(scan, kept)
    owner: dict[bytes, str] = {}
    for source in (None, "trainval"):
        free = {image: stratum for image, stratum in strata.items() if kept[image] == source}
        for images in _groups(free, scan, source):
            owner |= _divide(images, split, seed, source)
    owner |= {image: name for image, name in kept.items() if name in SPLITS}
    left_out = {item["file"] for item in rejected}
    parts: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    for sample in sorted(scan.samples, key=lambda sample: (sample.identity, sample.name)):
        if sample.name not in left_out:
            parts[owner[sample.identity]].append(sample)
    for name, part in parts.items():
        if not part:
            raise InputError(
                f"no image is left for the {name} split: {len(owner)} distinct good images; "
                "at least one is needed for each of train, val and test"
            )
    return Division(parts, rejected, _rare(scan))


def _settle(samples: Sequence[Sample]) -> tuple[dict[bytes, str | None], list[dict[str, str]]]:
    """The source's split for each image (None if it has none), and a line for each sample that it put elsewhere."""
    wanted: dict[bytes, str | None] = {}
    for sample in samples:
        other = wanted.get(sample.identity)
        wanted[sample.identity] = min(other, sample.split, key=_STRONGEST.index)
    keeper = {(s.identity, s.split): s.name for s in sorted(samples, key=lambda sample: sample.name, reverse=True)}
    rejected = []
    for sample in samples:
        final = wanted[sample.identity]
        if sample.split in (None, final) or (sample.split == "trainval" and final in ("train", "val")):
            continue
        other_name = keeper[sample.identity, final]
        reason = f"the same image as {other_name}, which is in {final}: it would be seen in {sample.split} too"
        rejected.append({"file": sample.name, "reason": reason})
    return wanted, rejected


def _strata(scan: Scan, images: Mapping[bytes, str | None]) -> dict[bytes, int]:
    """The class by which each image is stratified: the rarest one it shows, counted in distinct images."""
    classes: dict[bytes, set[int]] = {image: set() for image in images}
    for sample in scan.samples:
        classes[sample.identity] |= set(sample.labels)
    frequency = Counter(label for labels in classes.values() for label in labels)
    return {
        image: min(labels, key=lambda label: (frequency[label], label)) if labels else _REST
        for image, labels in classes.items()
    }


def _groups(free: Mapping[bytes, int], scan: Scan, source: str | None) -> list[list[bytes]]:
    """The distinct images by stratum; if images may show several classes, the small strata are merged into one."""
    groups: dict[int, list[bytes]] = defaultdict(list)
    for image, stratum in free.items():
        groups[stratum].append(image)
    if KINDS[scan.annotation].exclusive:
        for stratum, images in groups.items():
            if source is None and len(images) < len(SPLITS):
                raise InputError(
                    f"class {scan.classes[stratum]!r} has {len(images)} distinct good images; "
                    f"at least {len(SPLITS)} are needed, one for each of train, val and test"
                )
        return list(groups.values())
    large = [images for images in groups.values() if len(images) >= len(SPLITS)]
    small = [image for images in groups.values() if len(images) < len(SPLITS) for image in images]
    return [*large, small]


def _divide(images: Sequence[bytes], split: SplitConfig, seed: int, source: str | None) -> dict[bytes, str]:
    """The split of each image of a stratum. All are for training if there are too few for a part held out."""
    test: list[bytes] = []
    if source is None:
        if len(images) < len(SPLITS):
            return dict.fromkeys(images, "train")
        test = _highest(images, split.test, len(images) - 2, _place)
    learnt = sorted(set(images) - set(test))
    val: list[bytes] = []
    if len(learnt) > 1:
        share = split.val / (split.train + split.val)
        val = _highest(learnt, share, len(learnt) - 1, lambda image: _seeded_place(image, seed))
    return {**dict.fromkeys(images, "train"), **dict.fromkeys(val, "val"), **dict.fromkeys(test, "test")}


def _highest(images: Sequence[bytes], share: float, most: int, place: Callable[[bytes], float]) -> list[bytes]:
    """The images whose place is in the upper `share` of 0..1, but at least one and at most `most`."""
    ordered = sorted(((place(image), image) for image in images), reverse=True)
    above = sum(where >= 1 - share for where, _ in ordered)
    return [image for _, image in ordered[: min(max(above, 1), most)]]


def _place(image: bytes) -> float:
    """Where an image lies in 0..1. The leading bytes of its identity are left out: they choose its shard."""
    return _fraction(image[8:16])


def _seeded_place(image: bytes, seed: int) -> float:
    return _fraction(hashlib.sha256(b"%d:%b" % (seed, image)).digest()[:8])


def _fraction(eight: bytes) -> float:
    """Eight bytes as a number in 0..1, below 1; all 53 bits that a float holds exactly."""
    return float((int.from_bytes(eight, "big") >> 11) / 2**53)


def _rare(scan: Scan) -> list[str]:
    """A warning about classes that cannot be in every split, if that is not an error."""
    if KINDS[scan.annotation].exclusive:
        return []
    images: dict[int, set[bytes]] = defaultdict(set)
    for sample in scan.samples:
        for label in sample.labels:
            images[label].add(sample.identity)
    rare = [f"{name} ({len(images[i])})" for i, name in enumerate(scan.classes) if len(images[i]) < len(SPLITS)]
    if not rare:
        return []
    return [f"classes with fewer than {len(SPLITS)} distinct images, so not in each split: {', '.join(rare)}"]
