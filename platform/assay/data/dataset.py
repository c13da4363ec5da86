"""Dataset versions: packed from raw data by `prepare`. Whatever trains opens them by hash (`storage/`), not by path.

A version is a folder `data/<name>` with `dataset.json` (the card), the packed splits and, if there is something to
say of single files, their report; it is identified by the hash that DVC gives the folder. Equal raw data, config and
environment give equal bytes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from assay.config.card import Annotation, Card
from assay.config.dataset import DatasetConfig
from assay.config.plugin import load_importer
from assay.data.annotations import KINDS, class_counts
from assay.data.images import Rejected, canonical, decode
from assay.data.pack import IDENTITY_BYTES, Packed, Packer
from assay.data.report import Report, listed
from assay.data.samples import Sample, Scan, SourceChanged
from assay.data.shards import SHARD_BYTES, shards
from assay.data.split import SPLITS, Division, split_samples
from assay.data.version import fix, folder_hash, identity_of, listing_hash, recorded_hash
from assay.errors import InputError, WorkError, known
from assay.files import new_folder, swapped, write_atomic
from assay.progress import Progress
from assay.state import HASHES, state_folder

CARD = "dataset.json"
_CHUNK = 32
"""Images that are in memory at once while packing."""


@dataclass
class Dataset:
    """An opened, verified dataset version. `hash` is DVC's.

    Attributes:
        opened: the identity of each file when it was compared with the hash, by relative path.
    """

    folder: Path
    card: Card
    hash: str
    opened: Mapping[str, list[int]] = field(default_factory=dict, kw_only=True, repr=False)

    def split(self, name: str) -> Packed:
        """The samples of `train`, `val` or `test`."""
        if name not in self.card.samples:
            raise InputError(f"dataset {self.card.name!r}: {known('split', name, list(self.card.samples))}")
        return Packed(self.folder, name)

    def require_unchanged(self) -> None:
        """Make sure that what was read so far is what was opened. A file that is gone is still open, and cannot change.

        Raises:
            WorkError: somebody wrote into a file; names both hashes.
        """
        if all(
            not (self.folder / path).exists() or identity_of(self.folder / path) == identity
            for path, identity in self.opened.items()
        ):
            return
        found, _ = folder_hash(self.folder, None)
        if found != self.hash:
            raise WorkError(
                f"dataset {self.card.name!r}: its files were written to while they were in use: they were {self.hash}, "
                f"and are {found}: prepare it again with `dvc repro --force data@{self.card.name}`"
            )


def identities(dataset: Dataset, split: str) -> list[bytes]:
    """What each image of a split is, by its pixels: the first 16 bytes of its identity, in the order of the samples."""
    with dataset.split(split) as packed:
        found: list[bytes] = packed.column("identity").to_pylist()
    return found


def seen_identities(dataset: Dataset) -> set[bytes]:
    """The identities of all images of train and val: what a model made from this version has seen."""
    return {identity for split in ("train", "val") for identity in identities(dataset, split)}


def prepare(root: Path, name: str, config: DatasetConfig, folder: Path, progress: Progress) -> Card:
    """Pack a dataset as its config describes. `folder` holds the old version or the new one, never half of one.

    Raises:
        InputError: the raw data are missing, changed, or unfit; nothing was written.
    """
    scan = scan_source(root, name, config, folder, progress)
    division = divide(name, scan, config)
    with new_folder(folder) as fresh:
        card = build(name, config, scan, division, fresh, progress)
        with swapped(fresh, folder):
            pass
    return card


def scan_source(root: Path, name: str, config: DatasetConfig, folder: Path, progress: Progress) -> Scan:
    """Check the raw data of a dataset. Errors name the dataset and how to fix it."""
    path = getattr(config.source, "path", None)
    if path is not None:
        raw = (root / path).resolve()
        if not raw.is_dir():
            raise InputError(
                f"datasets.{name}: the folder {path} is missing: restore it, "
                f"or fetch the packed version with `dvc pull data@{name}`"
            )
        refuse_overlap(raw, folder.resolve(), name)
    try:
        scan: Scan = load_importer(config.source.kind).scan(config.source, root, progress)
    except SourceChanged as error:
        again = f"run `assay data add {name} {error.folder}` to take the new version"
        raise InputError(f"datasets.{name}: {error}: {again}") from None
    except InputError as error:
        raise InputError(f"datasets.{name}: {error}") from None
    return scan


def refuse_overlap(raw: Path, folder: Path, name: str) -> None:
    """Packing replaces `folder`, so the raw data may neither lie in it nor contain it."""
    if raw.is_relative_to(folder) or folder.is_relative_to(raw):
        raise InputError(
            f"datasets.{name}: the folder {raw} overlaps {folder}, where the packed data go: "
            "move the images elsewhere, such as raw/"
        )


def divide(name: str, scan: Scan, config: DatasetConfig) -> Division:
    """Split the samples of a scan. Errors name the dataset."""
    try:
        return split_samples(scan, config.split, config.seed)
    except InputError as error:
        raise InputError(f"datasets.{name}: {error}") from None


def build(name: str, config: DatasetConfig, scan: Scan, division: Division, folder: Path, progress: Progress) -> Card:
    """Pack the samples into an empty `folder` and describe them. Raises `InputError` if raw data have changed."""
    parts, kind = division.parts, KINDS[scan.annotation]
    facts = [sample.facts for part in parts.values() for sample in part]
    channels = max(fact.channels for fact in facts)
    histogram = np.zeros((channels, 256), dtype=np.int64)
    done = 0
    for split, bits, samples in _shards(parts):
        counted = channels if split == "train" else 0
        with Packer(folder, split, bits, kind.schema) as packer:
            for sample, content, counts in _contents(samples, counted):
                packer.add(_row(sample, content) | kind.columns(sample))
                if counts is not None:
                    histogram += counts
                done += 1
                progress(done, len(facts), "packed")
    report = Report([*scan.rejected, *division.rejected], scan.converted)
    report.write(folder)
    mean, std = _moments(histogram)
    sides = ([fact.height for fact in facts], [fact.width for fact in facts])
    card = Card(
        name=name,
        kind=config.source.kind,
        annotation=cast("Annotation", scan.annotation),
        classes=scan.classes,
        channels=channels,
        samples={split: len(parts[split]) for split in SPLITS},
        counts={split: class_counts(scan.annotation, parts[split], scan.classes) for split in SPLITS},
        min_size=[min(side) for side in sides],
        max_size=[max(side) for side in sides],
        median_size=[statistics.median_low(side) for side in sides],
        short_side=statistics.median_low(min(fact.height, fact.width) for fact in facts),
        mean=mean,
        std=std,
        source=scan.digest,
        split=config.split,
        seed=config.seed,
        rejected=listed(report.rejected),
        converted=listed(report.converted),
        warnings=[*scan.warnings, *division.warnings],
        files=folder_hash(folder, None)[1],
    )
    text = json.dumps(card.model_dump(mode="json"), indent=1, ensure_ascii=False)
    write_atomic(folder / CARD, f"{text}\n".encode())
    return card


def _shards(parts: Mapping[str, Sequence[Sample]]) -> Iterator[tuple[str, str, Sequence[Sample]]]:
    """The split, the bits and the samples of each file to pack."""
    for split in SPLITS:
        for bits, samples in shards(parts[split], SHARD_BYTES):
            yield split, bits, samples


def _row(sample: Sample, content: bytes) -> dict[str, Any]:
    """The columns that every annotation has."""
    size = {"width": sample.facts.width, "height": sample.facts.height}
    return {"name": sample.name, "identity": sample.identity[:IDENTITY_BYTES], "image": content, **size}


_Counts = np.ndarray[Any, np.dtype[np.int64]]


def _contents(samples: Sequence[Sample], channels: int) -> Iterator[tuple[Sample, bytes, _Counts | None]]:
    """Each sample with its bytes to keep and its histogram [channels, 256] (None if `channels` is 0), in order."""
    work = partial(_content, channels=channels)
    pool = ThreadPoolExecutor(4)
    try:
        for start in range(0, len(samples), _CHUNK):
            chunk = samples[start : start + _CHUNK]
            for sample, (content, counts) in zip(chunk, pool.map(work, chunk), strict=True):
                yield sample, content, counts
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _content(sample: Sample, channels: int) -> tuple[bytes, _Counts | None]:
    try:
        content = canonical(sample.read(), sample.facts)
        if channels == 0:
            return content, None
        pixels = decode(content, channels).reshape(channels, -1)
    except Rejected as error:
        raise InputError(f"{sample.name}: {error}") from None
    return content, np.stack([np.bincount(channel, minlength=256) for channel in pixels])


def _moments(histogram: _Counts) -> tuple[list[float], list[float]]:
    """Mean and population standard deviation in 0..1 of each channel, exact until the last division."""
    mean, std = [], []
    for counts in histogram.tolist():
        total = sum(counts)
        first = sum(value * count for value, count in enumerate(counts))
        second = sum(value * value * count for value, count in enumerate(counts))
        mean.append(first / total / 255)
        std.append((total * second - first * first) ** 0.5 / total / 255)
    return mean, std


def read_card(folder: Path, name: str) -> Card:
    """The card of a version. Raises `InputError` if it is missing or damaged."""
    try:
        return Card.model_validate_json((folder / CARD).read_bytes())
    except FileNotFoundError:
        raise InputError(_not_here(name)) from None
    except OSError as error:
        raise InputError(f"dataset {name!r}: {CARD} cannot be read ({error.strerror}): {fix(name)}") from None
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise InputError(f"dataset {name!r}: {CARD} is damaged: {fix(name)}") from None
        raise InputError(
            f"dataset {name!r}: {CARD} is damaged or of another version of Assay ({error.error_count()} faults): "
            f"run `dvc checkout data@{name}` to go back or `dvc repro --force data@{name}` to prepare it again"
        ) from None


def open_dataset(root: Path, name: str, folder: Path) -> Dataset:
    """Open `folder` if it is the version that `dvc.lock` records, after comparing every file with it.

    Raises:
        InputError: it is missing, not recorded, or differs from what was recorded; one line with the fix.
    """
    if not folder.is_dir():
        raise InputError(_not_here(name))
    recorded = recorded_hash(root, name)
    if recorded is None:
        raise InputError(f"dataset {name!r} has no recorded version: run `dvc repro data@{name}`")
    found, md5s = folder_hash(folder, state_folder(root) / HASHES)
    card = read_card(folder, name)
    if found != recorded:
        raise InputError(differences(name, card, md5s, recorded)[0])
    return Dataset(folder, card, recorded)


def differences(name: str, card: Card, md5s: Mapping[str, str], recorded: str | None) -> list[str]:
    """A line for each file of a folder that is not the one of the recorded version, with the fix.

    Args:
        card, md5s: those of the folder. Without a recorded version, the card is believed; else, if the card itself is
            not the recorded one, it is the only one to be named.
    """
    if not _is_recorded(card, md5s, recorded):
        return [f"dataset {name!r}: {CARD} is not the recorded one: {fix(name)}"]
    lines = []
    for file in sorted(card.files.keys() | (md5s.keys() - {CARD})):
        if file not in md5s:
            lines.append(f"dataset {name!r}: {file} is missing: {fix(name)}")
        elif file not in card.files:
            lines.append(f"dataset {name!r}: {file} does not belong to the version in dvc.lock: {fix(name)}")
        elif md5s[file] != card.files[file]:
            lines.append(f"dataset {name!r}: {file} is not the recorded one: {fix(name)}")
    return lines


def sound_files(card: Card, md5s: Mapping[str, str], recorded: str | None) -> set[str]:
    """The files of a folder, besides the card, that are as they were packed; the arguments are as in `differences`."""
    if not _is_recorded(card, md5s, recorded):
        return set()
    return {file for file, md5 in card.files.items() if md5s.get(file) == md5}


def _is_recorded(card: Card, md5s: Mapping[str, str], recorded: str | None) -> bool:
    """Whether this card and the files that it names make the recorded hash. Always true if nothing is recorded."""
    return recorded in (None, listing_hash({**card.files, CARD: md5s[CARD]}))


def _not_here(name: str) -> str:
    return f"dataset {name!r} is not here: run `dvc repro data@{name}` or `dvc pull data@{name}`"
