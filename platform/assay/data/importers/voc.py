"""Pascal VOC: `Annotations/*.xml`, `JPEGImages/`, and the lists of `ImageSets/Main/`, if there are any.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 88, 2010. Its boxes count pixels from 1 and
include their last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from assay.config.plugin import FolderSource
from assay.data.samples import Scan
from assay.errors import InputError
from assay.progress import Progress

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from assay.data.boxes import Annotated, Corners, Drawn
    from assay.data.raw import File

MAX_XML = 4 * 2**20
"""The largest annotation that is read, in bytes; VOC's own have a few thousand."""

_ANNOTATIONS, _IMAGES, _LISTS = "Annotations/", "JPEGImages/", "ImageSets/Main/"


class Source(FolderSource):
    kind: Literal["voc"] = "voc"


def recognizes(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in (_ANNOTATIONS, _IMAGES))


def scan(source: Source, root: Path, progress: Progress) -> Scan:
    """Check every image and every annotation; `difficult` objects become ignored boxes.

    Raises:
        SourceChanged: the folder no longer matches `source.sha256` (not compared if empty).
        InputError: there is no such folder, no annotation in it, or no good box.
    """
    from assay.data.boxes import scan_of
    from assay.data.raw import look_at_images, read_folder

    files, identity = read_folder(source, root, progress, look_at_images)
    annotations = [file for file in files if _is_in(file, _ANNOTATIONS, ".xml")]
    if not annotations:
        raise InputError(f"{source.path}: no XML file in {_ANNOTATIONS}: name the folder that holds Annotations/")
    images = _Images(files)
    rejected: list[dict[str, str]] = [{"file": f.shown, "reason": f.reason} for f in annotations if f.reason]
    splits, listed, warnings = _splits(files, {_stem(file) for file in annotations})
    annotated: list[Annotated] = []
    for file in annotations:
        if file.reason is None:
            _read(file, images, splits, annotated, rejected)
    rejected += images.unused()
    names = sorted({drawn.name for item in annotated for drawn in item.drawn if drawn.corners is not None})
    return scan_of(annotated, names, [*listed, *rejected], warnings, source.path, identity)


def _read(
    file: File,
    images: _Images,
    splits: Mapping[str, str | None] | None,
    annotated: list[Annotated],
    rejected: list[dict[str, str]],
) -> None:
    """Add one annotation to `annotated` or, if it cannot be used, the reason to `rejected`."""
    from assay.data.boxes import Annotated
    from assay.data.images import Rejected

    try:
        tree = _parse(file.content())
        image = images.take(_stem(file), tree)
        if splits is not None and _stem(file) not in splits:
            raise Rejected(f"is in no list of {_LISTS}")
        drawn = [_object(element) for element in tree.iterfind("object")]
        split = splits[_stem(file)] if splits is not None else None
        annotated.append(Annotated(image, drawn, _size(tree), split))
    except Rejected as error:
        rejected.append({"file": file.shown, "reason": str(error)})


def _is_in(file: File, folder: str, suffix: str) -> bool:
    """Whether the file is directly in the folder, is not hidden, and has the suffix."""
    name = file.relative.removeprefix(folder)
    return file.relative == folder + name and "/" not in name and name[0] != "." and name.lower().endswith(suffix)


def _stem(file: File) -> str:
    return Path(file.relative).stem


class _Images:
    """The images of the folder by name, each to be taken by one annotation."""

    def __init__(self, files: list[File]):
        self.files = [f for f in files if f.relative.startswith(_IMAGES) and (f.facts or f.reason)]
        self.by_name = {file.relative: file for file in self.files}
        self.by_stem = {file.relative.removeprefix(_IMAGES).rpartition(".")[0]: file for file in reversed(self.files)}
        self.taken: dict[str, str] = {}

    def take(self, stem: str, tree: Element) -> File:
        """The image named like the annotation, or else by its `filename`. Raises `Rejected`."""
        from assay.data.images import Rejected
        from assay.data.raw import inner_path

        filename = (tree.findtext("filename") or "").strip()
        inner = inner_path(_IMAGES, filename) or ""
        file = self.by_stem.get(stem) or self.by_name.get(inner)
        if file is None:
            raise Rejected(f"no image {_IMAGES}{stem}.* for it")
        if file.relative in self.taken:
            raise Rejected(f"annotates {file.shown}, as {self.taken[file.relative]} does")
        self.taken[file.relative] = f"{stem}.xml"
        if file.reason is not None:
            raise Rejected(f"its image {file.shown} is rejected: {file.reason}")
        return file

    def unused(self) -> list[dict[str, str]]:
        """A line for each bad image, and for each that no annotation names."""
        return [
            {"file": file.shown, "reason": file.reason or f"no annotation in {_ANNOTATIONS} names it"}
            for file in self.files
            if file.reason or file.relative not in self.taken
        ]


def _parse(content: bytes) -> Element:
    """The tree of an annotation. Raises `Rejected`; a DTD, which can turn a few bytes into gigabytes, is not read."""
    from xml.etree import ElementTree as ET
    from xml.parsers import expat

    from assay.data.images import Rejected

    if len(content) > MAX_XML:
        raise Rejected(f"larger than {MAX_XML >> 20} MiB")

    def refuse(*_: Any) -> None:
        raise Rejected("has a DTD or entities, which no annotation needs: they are not read")

    guard = expat.ParserCreate()
    guard.StartDoctypeDeclHandler = guard.EntityDeclHandler = refuse
    try:
        guard.Parse(content, True)
        tree = ET.fromstring(content)  # noqa: S314 (the guard saw it all: no DTD, so nothing to expand)
    except (expat.ExpatError, ET.ParseError, ValueError, LookupError) as error:  # the last two: unknown encodings
        raise Rejected(f"not readable as XML: {' '.join(str(error).split())}") from None
    if tree.tag != "annotation":
        raise Rejected("not a VOC annotation: its root is not <annotation>")
    return tree


def _size(tree: Element) -> tuple[float, float] | None:
    """The width and height that the annotation gives; some tools write zeros if they do not know them."""
    width, height = (_number(tree.findtext(f"size/{side}") or "0") for side in ("width", "height"))
    return (width, height) if width and height else None


def _object(element: Element) -> Drawn:
    from assay.data.boxes import Drawn
    from assay.data.images import Rejected

    name = (element.findtext("name") or "").strip()
    ignored = (element.findtext("difficult") or "").strip() == "1"
    try:
        if not name:
            raise Rejected("an object without a name")
        return Drawn(_corners(element), name, ignored)
    except Rejected as error:
        return Drawn(None, name, ignored, str(error))


def _corners(element: Element) -> Corners:
    from assay.data.images import Rejected

    values = []
    for key in ("xmin", "ymin", "xmax", "ymax"):
        text = element.findtext(f"bndbox/{key}")
        if text is None:
            raise Rejected(f"an object without bndbox/{key}")
        values.append(_number(text))
    return values[0] - 1, values[1] - 1, values[2], values[3]


def _number(text: str) -> float:
    from assay.data.boxes import number
    from assay.data.images import Rejected

    try:
        value = float(text)
    except ValueError:
        raise Rejected(f"{text.strip()[:40]!r} is not a number") from None
    return number(value)


def _splits(files: list[File], known: set[str]) -> tuple[dict[str, str | None] | None, list[dict[str, str]], list[str]]:
    """The split of each listed annotation (None: the lists divide nothing), lines that name no annotation, warnings."""
    from assay.data.raw import settled_splits

    lists = {_stem(file): file for file in files if _is_in(file, _LISTS, ".txt") and file.reason is None}
    lists = {name: lists[name] for name in ("train", "val", "trainval", "test") if name in lists}
    if {"trainval", "test"} <= lists.keys():
        lists = {name: lists[name] for name in ("trainval", "test")}
    elif "train" in lists or "val" in lists:
        lists.pop("trainval", None)
    meaning, warnings = settled_splits(set(lists))
    if not any(meaning.values()):
        return None, [], warnings
    splits: dict[str, str | None] = {}
    rejected, twice = [], []
    for name in lists:  # the test list comes last and wins
        for line, text in enumerate(lists[name].content().decode("utf-8", "backslashreplace").splitlines(), 1):
            stem = text.split()[0] if text.strip() else None
            if stem is None:
                continue
            if stem not in known:
                reason = f"names {stem[:80]}, which has no annotation"
                rejected.append({"file": f"{lists[name].shown}#{line}", "reason": reason})
            elif splits.get(stem, meaning[name]) != meaning[name]:
                twice.append(stem)
            splits[stem] = meaning[name]
    if twice:
        line_ = f"{len(twice)} images are in two lists of {_LISTS}, such as {twice[0]}: the later of"
        warnings = [*warnings, f"{line_} {', '.join(lists)} counts"]
    return splits, rejected, warnings
