"""`assay data check`: is a dataset version what was recorded, and can all of it be read?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.config.card import Card
from assay.config.dataset import DatasetConfig
from assay.data.annotations import KINDS
from assay.data.dataset import differences, open_dataset, read_card, sound_files
from assay.data.images import Rejected, decode
from assay.data.pack import Packed
from assay.data.report import REPORT, read_report
from assay.data.version import folder_hash, recorded_hash
from assay.errors import InputError
from assay.progress import Progress


def check_dataset(root: Path, name: str, config: DatasetConfig, folder: Path, progress: Progress) -> dict[str, Any]:
    """Compare all files with `dvc.lock`, decode all images, and check whether the raw data has changed.

    Only files that are the recorded ones are opened: a damaged one can end the process that reads it.

    Returns `ok`, `problems` (the version is damaged), `warnings` (it is sound, but cannot be rebuilt from the raw data)
    and the contents of the card. Raises `InputError` if there is no readable version at all.
    """
    if not folder.is_dir():
        open_dataset(root, name, folder)  # raises the error that names what is missing and the fix
    card = read_card(folder, name)
    recorded = recorded_hash(root, name)
    found, md5s = folder_hash(folder, None)
    problems = differences(name, card, md5s, recorded)
    if recorded is None:
        problems.insert(0, f"dataset {name!r} has no recorded version: run `dvc repro data@{name}`")
    sound = sound_files(card, md5s, recorded)
    problems += _check_files(folder, card, sound, progress)
    rejected = read_report(folder, card).rejected if REPORT in sound else card.rejected.first
    return {
        "name": name,
        "hash": found,
        "recorded": recorded,
        "samples": sum(card.samples.values()),
        "annotation": card.annotation,
        "boxes": card.boxes,
        "classes": card.classes,
        "rejected": rejected,
        "ok": not problems,
        "problems": problems,
        "warnings": [*card.warnings, *_check_raw(root, name, config)],
    }


def _check_files(folder: Path, card: Card, sound: set[str], progress: Progress) -> list[str]:
    """What is wrong with the samples in the packed files among `sound`."""
    problems = []
    done, total = 0, sum(card.samples.values())
    for split, count in card.samples.items():
        files = {file for file in card.files if file.startswith(f"{split}-")}
        if not files:
            problems.append(f"{split}: no file for its {count} samples")
        if not files & sound:
            continue
        try:
            packed = Packed(folder, split, list(files & sound))
        except InputError as error:
            problems.append(str(error))
            continue
        with packed:
            if len(packed) != count and files <= sound:
                problems.append(f"{split}: {len(packed)} samples instead of {count}")
            if not packed.fits(KINDS[card.annotation].schema):
                problems.append(f"{split}: the columns do not match the annotation {card.annotation!r}")
                continue
            for index in range(len(packed)):
                problem = _check_row(packed, index, card)
                if problem is not None:
                    problems.append(f"{split}: sample {index}: {problem}")
                done += 1
                progress(min(done, total), total, "checked")
    return problems


def _check_row(packed: Packed, index: int, card: Card) -> str | None:
    """What is wrong with one sample, or None. Damaged files can make Arrow itself fail."""
    try:
        row = packed.row(index)
        pixels = decode(bytes(packed.image(index)), card.channels)
    except Rejected as error:
        return str(error)
    except Exception as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    size = (row["height"], row["width"])
    if pixels.shape[1:] != size:
        return f"{row['name']}: height and width {pixels.shape[1:]} instead of {size}"
    problem = KINDS[card.annotation].problem(row, len(card.classes))
    return None if problem is None else f"{row['name']}: {problem}"


def _check_raw(root: Path, name: str, config: DatasetConfig) -> list[str]:
    path, recorded = getattr(config.source, "path", None), getattr(config.source, "sha256", None)
    if path is None:
        return []
    from assay.data.raw import folder_digest

    raw = (root / path).resolve()
    if not raw.is_dir():
        return [f"the folder {path} is missing: the packed version is usable, but cannot be rebuilt"]
    if folder_digest(raw) != recorded:
        return [f"the folder {path} has changed since it was added: to use it, run `assay data add {name} {path}`"]
    return []
