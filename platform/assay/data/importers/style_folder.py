"""A folder with `content/`, images to paint, and `style/`, images to paint them like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from assay.config.plugin import FolderSource
from assay.data.samples import Scan
from assay.errors import InputError
from assay.progress import Progress

if TYPE_CHECKING:
    from assay.data.images import ImageFacts
    from assay.data.raw import File

LEAST = 3
"""Content images needed: one for each of train, val and test."""


class Source(FolderSource):
    kind: Literal["style_folder"] = "style_folder"


def recognizes(folder: Path) -> bool:
    from assay.data.raw import top_folders

    return top_folders(folder) == ["content", "style"]


def scan(source: Source, root: Path, progress: Progress) -> Scan:
    """Check every file of the folder; all styles are in `train`.

    Raises:
        SourceChanged: the folder no longer matches `source.sha256` (not compared if empty).
        InputError: there is no such folder, no good style, or fewer than three good contents.
    """
    from assay.data import raw
    from assay.data.annotations import STYLE_CLASSES

    files, identity = raw.read_folder(source, root, progress, _look)
    for name in STYLE_CLASSES:
        if not (raw.locate(source.path, root) / name).is_dir():
            raise InputError(f"{source.path}: no folder {name}/ in it: put the {name} images there")
    files = raw.reject_contradictions(files, _class_of, "is content here and style there")
    good = raw.good_images(files)
    for name, least in zip(STYLE_CLASSES, (LEAST, 1), strict=True):
        count = len({file.identity for file in good if _class_of(file) == name})
        if count < least:
            bad = [file for file in files if file.reason and _class_of(file) == name]
            raise InputError(
                f"{source.path}: {name}/ has {count} distinct good images ({raw.first_reason(bad)}): "
                f"at least {least} needed"
            )
    samples = []
    for file in good:
        label = STYLE_CLASSES.index(_class_of(file))
        samples.append(raw.sample(file, (label,), split="train" if label else None))
    changes, warnings = raw.converted_lines(good), raw.copies_warning(good)
    return Scan(samples, STYLE_CLASSES, raw.rejected_lines(files), changes, warnings, identity, "style")


def _class_of(file: File) -> str:
    return file.relative.partition("/")[0]


def _look(relative: str, content: bytes) -> ImageFacts:
    from assay.data.annotations import STYLE_CLASSES
    from assay.data.images import Rejected, decode, inspect

    folders = relative.split("/")[:-1]
    if not folders or folders[0] not in STYLE_CLASSES:
        raise Rejected("lies outside content/ and style/")
    if any(part.startswith(".") for part in folders):
        raise Rejected("lies in a hidden folder")
    facts = inspect(content)
    pixels = decode(content, facts.channels).reshape(facts.channels, -1)
    if (pixels == pixels[:, :1]).all():
        raise Rejected("of one colour: there is nothing to see in it")
    return facts
