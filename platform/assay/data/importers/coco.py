"""COCO: JSON files with images, categories and boxes, as COCO itself and tools such as Roboflow write them.

The format is described at https://cocodataset.org/#format-data. A box is [x, y, width, height] in pixels.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from assay.config.plugin import FolderSource
from assay.data.samples import Scan
from assay.errors import InputError
from assay.progress import Progress

if TYPE_CHECKING:
    from assay.data.boxes import Annotated, Drawn
    from assay.data.raw import File

_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
_WORDS |= {"test": "test", "testing": "test", "trainval": "trainval"}
_HEAD = 2**16


class Source(FolderSource):
    kind: Literal["coco"] = "coco"


def recognizes(folder: Path) -> bool:
    paths = [*folder.glob("*.json"), *folder.glob("*/*.json")]
    return any(_looks_right(path) for path in paths if path.is_file() and not path.name.startswith("."))


def _looks_right(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return "coco" in path.name or re.search(rb'"(images|annotations)"\s*:', file.read(_HEAD)) is not None
    except OSError:
        return False  # reported when the folder is read


def scan(source: Source, root: Path, progress: Progress) -> Scan:
    """Check every image and every annotation; crowds become ignored boxes.

    Raises:
        SourceChanged: the folder no longer matches `source.sha256` (not compared if empty).
        InputError: there is no such folder, no COCO file in it, no image, or no good box.
    """
    from assay.data.boxes import scan_of
    from assay.data.raw import look_at_images, read_folder, settled_splits

    files, identity = read_folder(source, root, progress, look_at_images)
    documents, warnings = _documents(files, source.path)
    meaning: Mapping[str, str | None] = {}
    if len(documents) > 1:
        meaning, lines = settled_splits({name for document in documents if (name := _split(document.file))})
        warnings += lines
    found = _Found({file.relative: file for file in files})
    for document in documents:
        found.add(document, meaning.get(_split(document.file) or ""))
    if not found.annotated:
        raise InputError(f"{source.path}: {_nothing(documents, found.rejected)}")
    return scan_of(found.annotated, found.classes, found.lines(), warnings, source.path, identity)


def _nothing(documents: list[_Document], rejected: list[dict[str, str]]) -> str:
    first = f"; the first problem: {rejected[0]['file']}: {rejected[0]['reason']}" if rejected else ""
    names = ", ".join(document.file.shown for document in documents)
    return f"{names} names no image that exists and is good{first}: put the images next to it or into images/"


@dataclass(frozen=True)
class _Document:
    """One COCO file: its categories by id, its images, its annotations."""

    file: File
    categories: dict[Any, str]
    images: list[Any]
    annotations: list[Any]


def _documents(files: list[File], shown: str) -> tuple[list[_Document], list[str]]:
    """The COCO files of the folder; if some are called `instances_...`, captions and key points are not read."""
    paths = [file for file in files if _is_annotation(file.relative)]
    instances = [file for file in paths if Path(file.relative).name.startswith("instances_")]
    read = {file.relative for file in instances or paths}
    left_out = [file.shown for file in paths if file.relative not in read]
    for file in instances or paths:
        if file.reason is not None:
            raise InputError(f"{shown}: {file.shown}: {file.reason}")
    if not paths:
        raise InputError(f"{shown}: no JSON file in it, in annotations/ or in its folders: a COCO file is needed")
    warnings = [f"not read, because there are instances_*.json: {', '.join(left_out)}"] if left_out else []
    return [_document(file, f"{shown}: {file.shown}") for file in instances or paths], warnings


def _is_annotation(relative: str) -> bool:
    hidden = any(part.startswith(".") for part in relative.split("/"))
    return relative.lower().endswith(".json") and relative.count("/") <= 1 and not hidden


def _document(file: File, shown: str) -> _Document:
    try:
        data = json.loads(file.content())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{shown}: not readable as JSON: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise InputError(f"{shown}: not a COCO file: it must be an object with images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise InputError(f"{shown}: not a COCO file: it has no list {key!r}")
    if not data["images"]:
        raise InputError(f"{shown}: its list of images is empty")
    return _Document(file, _categories(data["categories"], shown), data["images"], data["annotations"])


def _categories(entries: list[Any], shown: str) -> dict[Any, str]:
    """Names by id, in the order of the ids."""
    from assay.data.raw import plain

    names: dict[Any, str] = {}
    for entry in entries:
        key, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not _is_id(key) or not isinstance(name, str) or not name.strip():
            raise InputError(f"{shown}: each category needs an id and a name, not {repr(entry)[:80]}")
        if key in names:
            raise InputError(f"{shown}: two categories have the id {key!r}")
        if plain(name.strip()) in names.values():
            raise InputError(f"{shown}: two categories are called {plain(name.strip())!r}: make them one")
        names[key] = plain(name.strip())
    return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _split(file: File) -> str | None:
    """The split in the name of a COCO file, or in that of its folder."""
    for part in reversed(file.relative.lower().split("/")):
        for word in re.findall("[a-z]+", part.removesuffix(".json")):
            if word in _WORDS:
                return _WORDS[word]
    return None


@dataclass
class _Found:
    """The content of all COCO files. `files` are those of the folder, by relative path."""

    files: dict[str, File]
    annotated: list[Annotated] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    taken: dict[str, str] = field(default_factory=dict)
    """The images that an entry names, each with the file that contains the entry."""

    def add(self, document: _Document, split: str | None) -> None:
        from assay.data.boxes import Annotated
        from assay.data.images import Rejected

        self.classes += [name for name in document.categories.values() if name not in self.classes]
        images, known = self._images(document)
        drawn = self._drawn(document, known)
        for key, (file, entry) in images.items():
            try:
                self.annotated.append(Annotated(file, drawn[key], _size(entry), split))
            except Rejected as error:
                self.rejected.append({"file": file.shown, "reason": f"its width or height: {error}"})

    def lines(self) -> list[dict[str, str]]:
        """Everything that cannot be used: bad images, images that no entry names, bad entries."""
        named = [
            {"file": file.shown, "reason": file.reason or "no COCO file names it: it is not annotated"}
            for file in self.files.values()
            if file.reason or (file.facts and file.relative not in self.taken)
        ]
        return [*named, *self.rejected]

    def _reject(self, document: _Document, part: str, reason: str) -> None:
        self.rejected.append({"file": f"{document.file.shown}#{part}", "reason": reason})

    def _images(self, document: _Document) -> tuple[dict[Any, tuple[File, Mapping[str, Any]]], set[Any]]:
        """The good images by id, and the ids of all."""
        images: dict[Any, tuple[File, Mapping[str, Any]]] = {}
        known: set[Any] = set()
        for count, entry in enumerate(document.images, 1):
            part = f"images[{count}]"
            if (
                not isinstance(entry, dict)
                or not _is_id(entry.get("id"))
                or not isinstance(entry.get("file_name"), str)
            ):
                self._reject(document, part, "needs an id and a file_name")
                continue
            if entry["id"] in known:
                self._reject(document, part, f"its id {entry['id']!r} is that of another image")
                continue
            known.add(entry["id"])
            file, reason = self._locate(document, entry["file_name"])
            if file is None:
                self._reject(document, part, reason)
                continue
            self.taken[file.relative] = document.file.shown
            if file.reason is None:  # a bad image has a line of its own
                images[entry["id"]] = file, entry
        return images, known

    def _locate(self, document: _Document, name: str) -> tuple[File | None, str]:
        """The image that a `file_name` refers to, or why there is none."""
        from assay.data.raw import inner_path, plain

        if inner_path(name) is None:
            return None, f"file_name {plain(name)[:80]!r} is not a path below the folder"
        for place in _image_folders(document.file.relative):
            file = self.files.get(inner_path(place, name) or "")
            if file is not None and (file.facts or file.reason):
                if file.relative in self.taken:
                    return None, f"{file.shown} has an entry in {self.taken[file.relative]} already"
                return file, ""
        return None, f"no image {plain(name)[:80]} next to it, in the folder or in images/"

    def _drawn(self, document: _Document, known: set[Any]) -> dict[Any, list[Drawn]]:
        """The boxes of each image by its id, in the order of the file."""
        drawn: dict[Any, list[Drawn]] = defaultdict(list)
        for count, entry in enumerate(document.annotations, 1):
            key = entry.get("image_id") if isinstance(entry, dict) else None
            if not isinstance(entry, dict) or not _is_id(key) or key not in known:
                self._reject(document, f"annotations[{count}]", f"no image has the id {repr(key)[:40]}")
            else:
                drawn[key].append(_box(entry, document.categories))
        return drawn


def _image_folders(relative: str) -> list[str]:
    """Where the images of a COCO file may be: next to it, in the folder, in images/, in a folder for the split."""
    folder, _, name = relative.rpartition("/")
    split = name.removesuffix(".json").rpartition("_")[2]  # instances_train2017.json: train2017/
    return [folder, "", "images", *([split, f"images/{split}", f"{folder}/images"] if split else [])]


def _size(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    """The width and height that an entry gives, None if it gives none; some tools write zeros instead."""
    from assay.data.boxes import number

    width, height = (number(entry.get(side) or 0) for side in ("width", "height"))
    return (width, height) if width and height else None


def _box(entry: Mapping[str, Any], categories: Mapping[Any, str]) -> Drawn:
    from assay.data.boxes import Drawn, number
    from assay.data.images import Rejected

    key, box = entry.get("category_id"), entry.get("bbox")
    name = categories.get(key, "") if _is_id(key) else ""
    ignored = entry.get("iscrowd") in (1, True)
    try:
        if not name:
            raise Rejected(f"no category has the id {repr(key)[:40]}")
        if not isinstance(box, list) or len(box) != 4:
            raise Rejected(f"bbox must be [x, y, width, height], not {repr(box)[:40]}")
        x, y, width, height = (number(value) for value in box)
        return Drawn((x, y, x + width, y + height), name, ignored)
    except Rejected as error:
        return Drawn(None, name, ignored, str(error))
