"""Stratified splits that depend only on the contents and the seed, never on names or the order of files."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assay.config.card import SplitConfig
from assay.data.annotations import KINDS
from assay.data.samples import Sample, Scan
from assay.errors import InputError

SPLITS = ("train", "val", "test")
_STRONGEST = ("test", "val", "train", "trainval", None)
"""If a source puts copies of one content into different splits, the first of these wins: test sets never change."""
_REST = -1
"""The stratum of images that show nothing, and of classes too rare for one of their own."""


@dataclass(frozen=True)
class Division:
    """The samples of each split, sorted by name; what was left out (as in a scan), and warnings."""

    parts: dict[str, list[Sample]]
    rejected: list[dict[str, str]]
    warnings: list[str]


def split_samples(scan: Scan, split: SplitConfig, seed: int) -> Division:
    """Divide the samples of a scan; copies of a content always go into the same split.

    What the source itself puts into a split stays there. A part of `trainval` becomes `val`, in the ratio of `split`.
    Everything else is divided among all three. Strata are the classes, or each image's rarest class if images may
    show several.

    Raises:
        InputError: an exclusive class has fewer than three distinct images to divide, or a split is empty.
    """
    kept, rejected = _settle(scan.samples)
    strata = _strata(scan, kept)
    owner: dict[str, str] = {}
    for source in (None, "trainval"):
        free = {sha: stratum for sha, stratum in strata.items() if kept[sha] == source}
        owner |= _divide(_groups(free, scan, source), split, seed, source)
    owner |= {sha: name for sha, name in kept.items() if name in SPLITS}
    left_out = {item["file"] for item in rejected}
    parts: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    for sample in sorted(scan.samples, key=lambda sample: sample.name):
        if sample.name not in left_out:
            parts[owner[sample.sha256]].append(sample)
    for name, part in parts.items():
        if not part:
            raise InputError(
                f"no image is left for the {name} split: {len(owner)} distinct good images; "
                "at least one is needed for each of train, val and test"
            )
    return Division(parts, rejected, _rare(scan))


def _settle(samples: Sequence[Sample]) -> tuple[dict[str, str | None], list[dict[str, str]]]:
    """The source's split for each content (None if it has none), and a line for each sample that it put elsewhere."""
    wanted: dict[str, str | None] = {}
    for sample in samples:
        other = wanted.get(sample.sha256)
        wanted[sample.sha256] = min(other, sample.split, key=_STRONGEST.index)
    keeper = {(s.sha256, s.split): s.name for s in sorted(samples, key=lambda sample: sample.name, reverse=True)}
    rejected = []
    for sample in samples:
        final = wanted[sample.sha256]
        if sample.split in (None, final) or (sample.split == "trainval" and final in ("train", "val")):
            continue
        other_name = keeper[sample.sha256, final]
        reason = f"the same image as {other_name}, which is in {final}: it would be seen in {sample.split} too"
        rejected.append({"file": sample.name, "reason": reason})
    return wanted, rejected


def _strata(scan: Scan, contents: Mapping[str, str | None]) -> dict[str, int]:
    """The class by which each content is stratified: the rarest one it shows, counted in contents."""
    classes: dict[str, set[int]] = {sha: set() for sha in contents}
    for sample in scan.samples:
        classes[sample.sha256] |= set(sample.labels)
    frequency = Counter(label for labels in classes.values() for label in labels)
    return {
        sha: min(labels, key=lambda label: (frequency[label], label)) if labels else _REST
        for sha, labels in classes.items()
    }


def _groups(free: Mapping[str, int], scan: Scan, source: str | None) -> list[list[str]]:
    """The contents by stratum; if images may show several classes, the small strata are merged into one."""
    groups: dict[int, list[str]] = defaultdict(list)
    for sha, stratum in free.items():
        groups[stratum].append(sha)
    if KINDS[scan.annotation].exclusive:
        for stratum, contents in groups.items():
            if source is None and len(contents) < len(SPLITS):
                raise InputError(
                    f"class {scan.classes[stratum]!r} has {len(contents)} distinct good images; "
                    f"at least {len(SPLITS)} are needed, one for each of train, val and test"
                )
        return list(groups.values())
    large = [contents for contents in groups.values() if len(contents) >= len(SPLITS)]
    small = [sha for contents in groups.values() if len(contents) < len(SPLITS) for sha in contents]
    return [*large, small]


def _divide(groups: Sequence[Sequence[str]], split: SplitConfig, seed: int, source: str | None) -> dict[str, str]:
    owner: dict[str, str] = {}
    for contents in groups:
        ordered = sorted(contents, key=lambda sha: hashlib.sha256(f"{seed}:{sha}".encode()).digest())
        if source == "trainval":
            first, second = _cut(len(ordered), split), len(ordered)
        else:
            first, second = _cuts(len(ordered), split)
        owner.update(dict.fromkeys(ordered[:first], "train"))
        owner.update(dict.fromkeys(ordered[first:second], "val"))
        owner.update(dict.fromkeys(ordered[second:], "test"))
    return owner


def _cuts(count: int, split: SplitConfig) -> tuple[int, int]:
    """Where train ends and where val ends among `count` contents; no part is empty if there are three."""
    if count < len(SPLITS):
        return count, count
    first = min(max(round(count * split.train), 1), count - 2)
    second = min(max(round(count * (split.train + split.val)), first + 1), count - 1)
    return first, second


def _cut(count: int, split: SplitConfig) -> int:
    """Where train ends and val begins; neither is empty if there are two."""
    if count < 2:
        return count
    return min(max(round(count * split.train / (split.train + split.val)), 1), count - 1)


def _rare(scan: Scan) -> list[str]:
    """A warning about classes that cannot be in every split, if that is not an error."""
    if KINDS[scan.annotation].exclusive:
        return []
    contents: dict[int, set[str]] = defaultdict(set)
    for sample in scan.samples:
        for label in sample.labels:
            contents[label].add(sample.sha256)
    rare = [f"{name} ({len(contents[i])})" for i, name in enumerate(scan.classes) if len(contents[i]) < len(SPLITS)]
    if not rare:
        return []
    return [f"classes with fewer than {len(SPLITS)} distinct images, so not in each split: {', '.join(rare)}"]
