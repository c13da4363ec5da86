"""Images that each show any number of things: a folder with the images and `labels.csv`.

The table has the columns `file` (relative to the folder) and `labels` (separated by `;`, or empty).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from assay.config.plugin import FolderSource
from assay.data.samples import Scan
from assay.errors import InputError
from assay.progress import Progress

if TYPE_CHECKING:
    from assay.data.raw import File

TABLE = "labels.csv"


class Source(FolderSource):
    kind: Literal["labels_csv"] = "labels_csv"


def recognizes(folder: Path) -> bool:
    return (folder / TABLE).is_file()


def scan(source: Source, root: Path, progress: Progress) -> Scan:
    """Check every image and every row of the table.

    Raises:
        SourceChanged: the folder no longer matches `source.sha256` (not compared if empty).
        InputError: there is no such folder, no readable table, no good image, or no label at all.
    """
    from assay.data import raw

    files, identity = raw.read_folder(source, root, progress, raw.look_at_images)
    shown = f"{source.path}: {TABLE}"
    table = next((file for file in files if file.relative == TABLE), None)
    if table is None or table.reason is not None:
        raise InputError(f"{shown}: {table.reason if table else 'no such file'}: it names the labels of each image")
    labels, rejected = _rows(_text(table, shown), {f.relative: f for f in files if f.facts or f.reason}, shown)
    files = raw.reject_contradictions(files, lambda file: labels.get(file.relative), "has other labels")
    good = [file for file in raw.good_images(files) if file.relative in labels]
    classes = sorted({name for file in good for name in labels[file.relative]})
    if not classes:
        bad = [file for file in files if file.reason]
        raise InputError(f"{shown}: gives no label to any of {len(good)} good images ({raw.first_reason(bad)})")
    missing = [
        {"file": file.shown, "reason": f"has no row in {TABLE}"}
        for file in raw.good_images(files)
        if file.relative not in labels
    ]
    number = {name: label for label, name in enumerate(classes)}
    samples = [raw.sample(file, tuple(sorted(number[name] for name in labels[file.relative]))) for file in good]
    rejected = [*raw.rejected_lines(files), *missing, *rejected]
    warnings = raw.copies_warning(good)
    if empty := sum(not sample.labels for sample in samples):
        warnings.append(f"{empty} images have no label: they are kept as negatives")
    return Scan(samples, classes, rejected, raw.converted_lines(good), warnings, identity, "labels")


def _text(table: File, shown: str) -> str:
    try:
        return table.content().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown}: not readable as UTF-8: {error.reason} at byte {error.start}") from None


def _rows(text: str, files: dict[str, File], shown: str) -> tuple[dict[str, frozenset[str]], list[dict[str, str]]]:
    """The labels of each file that exists, and a line for each row that cannot be used."""
    from assay.data.raw import inner_path

    labels: dict[str, frozenset[str]] = {}
    rejected = []
    for line, name, value in _records(text, shown):
        inner = inner_path(name.strip())
        if inner is None:
            reason = f"file {name.strip()[:80]!r} is not a path below the folder"
        elif inner not in files:
            reason = f"no image {inner[:80]}"
        elif inner in labels:
            reason = f"{inner[:80]} has a row already"
        else:
            labels[inner] = frozenset(part.strip() for part in value.split(";") if part.strip())
            continue
        rejected.append({"file": f"{TABLE}#{line}", "reason": reason})
    return labels, rejected


def _records(text: str, shown: str) -> Iterator[tuple[int, str, str]]:
    """The line, the file and the labels of each row. Raises `InputError` if the table is malformed."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [(name or "").strip() for name in reader.fieldnames or []]
        if missing := [name for name in ("file", "labels") if name not in columns]:
            raise InputError(f"{shown}: no column {missing[0]!r} in its first line; it needs file,labels")
        reader.fieldnames = columns
        for row in reader:
            if None in row or row["labels"] is None:
                raise InputError(f"{shown}: line {reader.line_num} does not have {len(columns)} columns: quote commas")
            yield reader.line_num, row["file"], row["labels"]
    except csv.Error as error:
        raise InputError(f"{shown}: line {reader.reader.line_num}: {error}") from None
