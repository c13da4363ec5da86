"""A folder of images with one sub-folder per class."""

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


class Source(FolderSource):
    kind: Literal["image_folder"] = "image_folder"


def scan(source: Source, root: Path, progress: Progress) -> Scan:
    """Check every file of the folder.

    Raises:
        SourceChanged: the folder no longer matches `source.sha256` (not compared if empty).
        InputError: there is no such folder, fewer than two classes, or a class without a good image.
    """
    from assay.data import raw

    files, identity = raw.read_folder(source, root, progress, _look)
    classes = raw.top_folders(raw.locate(source.path, root))
    _require_classes(classes, source.path)
    files = raw.reject_contradictions(files, _class_of, "is of another class")
    good = raw.good_images(files)
    _require_good(files, good, classes, source.path)
    labels = {name: label for label, name in enumerate(classes)}
    samples = [raw.sample(file, (labels[_class_of(file)],)) for file in good]
    names = [raw.display(name) for name in classes]
    changes, warnings = raw.converted_lines(good), raw.copies_warning(good)
    return Scan(samples, names, raw.rejected_lines(files), changes, warnings, identity)


def _look(relative: str, content: bytes) -> ImageFacts:
    from assay.data.images import Rejected, inspect

    if "/" not in relative:
        raise Rejected("lies outside the class folders, so it belongs to no class")
    if any(part.startswith(".") for part in relative.split("/")[:-1]):
        raise Rejected("lies in a hidden folder")
    return inspect(content)


def _require_classes(names: list[str], shown: str) -> None:
    from assay.data.raw import display

    if not names:
        raise InputError(f"{shown}: no class folders; put the images of each class into their own folder")
    if len(names) == 1:
        raise InputError(f"{shown}: only one class ({display(names[0])}); a classification needs at least two")


def _class_of(file: File) -> str:
    return file.relative.partition("/")[0]


def _require_good(files: list[File], good: list[File], classes: list[str], shown: str) -> None:
    from assay.data.raw import display, first_reason

    present = {_class_of(file) for file in good}
    for name in classes:
        if name not in present:
            bad = [file for file in files if _class_of(file) == name and "/" in file.relative]
            raise InputError(
                f"{shown}: class {display(name)!r} has no good image ({first_reason(bad)}): "
                "add images to the folder or remove it"
            )
