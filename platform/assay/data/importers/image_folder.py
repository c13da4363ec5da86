"""A folder of images with one sub-folder a class. Every file is checked by its content, whatever it is called."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from assay.config import SourceConfig
from assay.data.importers import Progress, Sample, Scan, SourceChanged
from assay.errors import InputError

if TYPE_CHECKING:
    from assay.data.images import ImageFacts

MAX_BYTES = 512 * 2**20
"""The largest file that is read as an image."""

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}


class Source(SourceConfig):
    """`path` is relative to the project or absolute; `sha256` is the `folder_digest` of what was added."""

    kind: Literal["image_folder"] = "image_folder"
    path: str
    sha256: str


@dataclass(frozen=True)
class _File:
    """What was found about one path below the folder. Regular files have a `sha256`, good images `facts`."""

    relative: str
    path: Path
    sha256: str | None = None
    facts: ImageFacts | None = None
    reason: str | None = None


def scan(source: Source, root: Path, progress: Progress) -> Scan:
    """Check every file of the folder.

    Raises:
        SourceChanged: the folder is not the one that `source.sha256` names (an empty one is not compared).
        InputError: there is no such folder, fewer than two classes, or a class without a good image.
    """
    folder = locate(source.path, root)
    files = _examine(folder, progress, decode=True)
    identity = _digest(files)
    if source.sha256 and identity != source.sha256:
        raise SourceChanged(source.path, source.sha256, identity)
    classes = class_folders(folder)
    _require_classes(classes, source.path)
    files = _reject_contradictions(files)
    good = [file for file in files if file.reason is None and file.facts is not None]
    _require_good(files, good, classes, source.path)
    labels = {name: label for label, name in enumerate(classes)}
    samples = [_sample(file, labels) for file in good]
    rejected = [{"file": display(file.relative), "reason": file.reason} for file in files if file.reason]
    converted = [{"file": display(f.relative), "change": change} for f in good for change in _changes(f)]
    return Scan(samples, [display(name) for name in classes], rejected, converted, _warnings(good), identity)


def folder_digest(path: Path) -> str:
    """sha256 over the sorted (relative path, sha256 of the content) of every regular file: the raw data's identity."""
    return _digest(_examine(path.resolve(), lambda *_: None, decode=False))


def locate(path: str, root: Path) -> Path:
    """The folder that `path` names, resolved. Raises `InputError` where there is none."""
    folder = (root / path).resolve()
    if not folder.is_dir():
        raise InputError(f"{path}: {'not a folder' if folder.exists() else 'no such folder'}")
    return folder


def display(relative: str) -> str:
    """A file name that can be printed and stored: bytes that are no UTF-8 are written as escapes."""
    return os.fsencode(relative).decode("utf-8", "backslashreplace")


def _examine(folder: Path, progress: Progress, decode: bool) -> list[_File]:
    """Look at every path below `folder`, in sorted order, by several threads. `decode` False only hashes."""
    paths = sorted(_walk(folder), key=lambda path: os.fsencode(path))
    check = partial(_check, folder=folder, decode=decode)
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    found: list[_File] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders grumble about each odd file; what matters becomes a reason
            for file in pool.map(check, paths):
                found.append(file)
                progress(len(found), len(paths), "checked")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # on Ctrl-C only the pictures in hand are finished
    return found


def _walk(folder: Path) -> Iterator[str]:
    """The paths of everything below `folder` but its real folders, relative and with `/`."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            entries = list(os.scandir(folder / prefix))
        except PermissionError:
            raise InputError(f"{folder / prefix}: the folder may not be read: mend its permissions") from None
        for entry in entries:
            relative = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{relative}/")
            else:
                yield relative


def _check(relative: str, folder: Path, decode: bool) -> _File:
    from assay.data.images import Rejected, inspect

    path = folder / relative
    try:
        content, sha256 = _load(path, folder)
    except Rejected as error:
        return _File(relative, path, reason=str(error))
    if not decode:
        return _File(relative, path, sha256)
    try:
        if "/" not in relative:
            raise Rejected("lies outside the class folders, so it belongs to no class")
        if any(part.startswith(".") for part in relative.split("/")[:-1]):
            raise Rejected("lies in a hidden folder")
        if content is None:
            raise Rejected(f"larger than {MAX_BYTES >> 20} MiB")
        return _File(relative, path, sha256, inspect(content))
    except Rejected as error:
        return _File(relative, path, sha256, reason=str(error))


def _load(path: Path, folder: Path) -> tuple[bytes | None, str]:
    """The content (None beyond MAX_BYTES) and its sha256. Raises `Rejected` for all that is no readable file."""
    from assay.data.images import Rejected

    try:
        if path.is_symlink():
            if not path.exists():
                raise Rejected("broken symbolic link")
            if not path.resolve().is_relative_to(folder):
                raise Rejected("symbolic link to outside the folder")
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise Rejected("symbolic link to a folder" if stat.S_ISDIR(mode) else "not a regular file")
        # Should it become a FIFO just now, O_NONBLOCK keeps the opening from waiting for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size > MAX_BYTES:
                return None, hashlib.file_digest(file, "sha256").hexdigest()
            content = file.read()
            return content, hashlib.sha256(content).hexdigest()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise Rejected(f"not readable: {getattr(error, 'strerror', None) or error}") from None


def _digest(files: list[_File]) -> str:
    total = hashlib.sha256()
    for file in files:
        if file.sha256 is not None:
            total.update(os.fsencode(file.relative) + b"\0" + file.sha256.encode() + b"\n")
    return total.hexdigest()


def class_folders(folder: Path) -> list[str]:
    """The names of the folders that are classes, sorted: all real ones that are not hidden."""
    return sorted(e.name for e in os.scandir(folder) if e.is_dir(follow_symlinks=False) and e.name[0] != ".")


def _require_classes(names: list[str], shown: str) -> None:
    if not names:
        raise InputError(f"{shown}: no class folders; put the images of each class into a folder of its own")
    if len(names) == 1:
        raise InputError(f"{shown}: only one class ({display(names[0])}); a classification needs at least two")


def _reject_contradictions(files: list[_File]) -> list[_File]:
    """Reject all copies of a content that lies under more than one class: one of the labels is wrong."""
    copies: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        if file.reason is None and file.sha256 is not None:
            copies[file.sha256].append(file)
    verdicts: dict[str, str] = {}
    for group in copies.values():
        for file in group:
            other = next((o for o in group if _class_of(o) != _class_of(file)), None)
            if other is not None:
                verdicts[file.relative] = f"the same image as {display(other.relative)}, which is of another class"
    return [
        _File(file.relative, file.path, file.sha256, None, verdicts[file.relative])
        if file.relative in verdicts
        else file
        for file in files
    ]


def _class_of(file: _File) -> str:
    return file.relative.partition("/")[0]


def _require_good(files: list[_File], good: list[_File], classes: list[str], shown: str) -> None:
    present = {_class_of(file) for file in good}
    for name in classes:
        if name not in present:
            bad = [file for file in files if _class_of(file) == name and "/" in file.relative]
            first = f"; the first: {display(bad[0].relative)}: {bad[0].reason}" if bad else ""
            raise InputError(
                f"{shown}: class {display(name)!r} has no good image ({len(bad)} rejected{first}): "
                "add images to the folder or remove it"
            )


def _sample(file: _File, labels: dict[str, int]) -> Sample:
    assert file.sha256 is not None
    assert file.facts is not None
    read = partial(_read_again, file.path, file.sha256)
    return Sample(display(file.relative), (labels[_class_of(file)],), file.sha256, file.facts, read)


def _read_again(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: changed while it was imported ({error.strerror}): run the command again") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path}: changed while it was imported: run the command again")
    return content


def _changes(file: _File) -> list[str]:
    assert file.facts is not None
    changes = list(file.facts.conversions)
    suffix = Path(file.relative).suffix.lower()
    if suffix not in _SUFFIXES[file.facts.format]:
        name = f"a {suffix} name" if suffix else "a name without extension"
        changes.insert(0, f"{file.facts.format} content under {name}")
    return changes


def _warnings(good: list[_File]) -> list[str]:
    copies = len(good) - len({file.sha256 for file in good})
    if not copies:
        return []
    return [f"{copies} images are exact copies of others; copies stay together in one split"]
