"""What all importers of user folders share. Files are checked by their content, whatever their names."""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from assay.config.plugin import FolderSource
from assay.data.images import ImageFacts, Rejected, inspect
from assay.data.samples import Box, Sample, SourceChanged
from assay.errors import InputError
from assay.progress import Progress

MAX_BYTES = 512 * 2**20
"""The largest file that is read."""

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}
_TEXTS = (".json", ".xml", ".csv", ".txt", ".md", ".yaml", ".yml", ".html", ".pdf")

Look = Callable[[str, bytes], ImageFacts | None]
"""Takes the relative path and the content of a readable file; returns its facts, or None if it is not meant to be an
image. Raises `Rejected` for a bad image, and for a file that does not belong there."""


@dataclass(frozen=True)
class File:
    """What is known about one path below the folder. Regular files have a `sha256`, good images `facts`."""

    relative: str
    path: Path
    sha256: str | None = None
    facts: ImageFacts | None = None
    reason: str | None = None

    @property
    def shown(self) -> str:
        return display(self.relative)

    @property
    def identity(self) -> bytes:
        """That of a good image: its pixels, not its bytes."""
        assert self.facts is not None
        return self.facts.identity

    def content(self) -> bytes:
        """The bytes that were checked. Raises `InputError` if they have changed or are gone."""
        assert self.sha256 is not None
        return _read_again(self.path, self.sha256)


def read_folder(source: FolderSource, root: Path, progress: Progress, look: Look) -> tuple[list[File], str]:
    """Every file of the folder, sorted, and the digest of them all.

    Raises:
        SourceChanged: the folder no longer matches `source.sha256` (not compared if empty).
        InputError: there is no such folder, or it cannot be read.
    """
    files = _examine(locate(source.path, root), progress, look)
    identity = _digest(files)
    if source.sha256 and identity != source.sha256:
        raise SourceChanged(source.path, source.sha256, identity)
    return files, identity


def folder_digest(path: Path) -> str:
    """sha256 over the sorted (relative path, sha256 of the content) of every regular file: the raw data's identity."""
    return _digest(_examine(path.resolve(), lambda *_: None, lambda *_: None))


def locate(path: str, root: Path) -> Path:
    """The folder that `path` names, resolved. Raises `InputError` if there is none."""
    folder = (root / path).resolve()
    if not folder.is_dir():
        raise InputError(f"{path}: {'not a folder' if folder.exists() else 'no such folder'}")
    return folder


def top_folders(folder: Path) -> list[str]:
    """The sorted names of the folders directly below that are neither hidden nor symbolic links."""
    return sorted(e.name for e in os.scandir(folder) if e.is_dir(follow_symlinks=False) and e.name[0] != ".")


def has_empty_folder(folder: Path) -> bool:
    """Whether a folder directly below contains no file at all. The digest, which covers files only, misses it."""
    return any(next(_walk(folder, f"{name}/"), None) is None for name in top_folders(folder))


def display(relative: str) -> str:
    """A file name fit to print and store: bytes that are not UTF-8 become escapes."""
    return os.fsencode(relative).decode("utf-8", "backslashreplace")


def plain(text: str) -> str:
    """Text from a file, fit to store: halves of surrogate pairs become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def look_at_images(relative: str, content: bytes) -> ImageFacts | None:
    """The `Look` for images stored next to annotations: hidden files and files named like text are not images."""
    if Path(relative).suffix.lower() in _TEXTS or any(part.startswith(".") for part in relative.split("/")):
        return None
    return inspect(content)


def inner_path(*parts: str) -> str | None:
    """A relative path below the folder, joined from untrusted names; None if it leads out of the folder."""
    names = [part.replace("\\", "/") for part in parts if part]
    joined = posixpath.normpath("/".join(names)) if names else "."
    absolute = any(name.startswith("/") or name[1:2] == ":" for name in names)
    return None if absolute or "\0" in joined or joined.split("/")[0] in ("", ".", "..") else joined


def sample(file: File, labels: tuple[int, ...], boxes: tuple[Box, ...] = (), split: str | None = None) -> Sample:
    """A good image as a sample."""
    assert file.sha256 is not None
    assert file.facts is not None
    read = partial(_read_again, file.path, file.sha256)
    return Sample(file.shown, labels, file.facts, read, boxes, split)


def good_images(files: Sequence[File]) -> list[File]:
    return [file for file in files if file.reason is None and file.facts is not None]


def rejected_lines(files: Sequence[File]) -> list[dict[str, str]]:
    return [{"file": file.shown, "reason": file.reason} for file in files if file.reason]


def converted_lines(good: Sequence[File]) -> list[dict[str, str]]:
    return [{"file": file.shown, "change": change} for file in good for change in _changes(file)]


def copies_warning(good: Sequence[File]) -> list[str]:
    copies = len(good) - len({file.identity for file in good})
    if not copies:
        return []
    return [f"{copies} images have the same pixels as others; such copies stay together in one split"]


def first_reason(bad: Sequence[File]) -> str:
    """`n rejected; the first: ...`, for the error that nothing good is left."""
    return f"{len(bad)} rejected" + (f"; the first: {bad[0].shown}: {bad[0].reason}" if bad else "")


def reject_contradictions(files: Sequence[File], annotated: Callable[[File], Hashable], what: str) -> list[File]:
    """Reject all copies of an image whose annotations (`annotated`) differ: at least one of them is wrong."""
    copies: dict[bytes, list[File]] = defaultdict(list)
    for file in good_images(files):
        copies[file.identity].append(file)
    verdicts: dict[str, str] = {}
    for first, *others in copies.values():
        other = next((file for file in others if annotated(file) != annotated(first)), None)
        if other is None:
            continue
        for file in (first, *others):
            against = other if annotated(file) == annotated(first) else first
            verdicts[file.relative] = f"the same image as {against.shown}, which {what}"
    return [
        replace(file, facts=None, reason=verdicts[file.relative]) if file.relative in verdicts else file
        for file in files
    ]


def settled_splits(present: set[str]) -> tuple[Mapping[str, str | None], list[str]]:
    """What each split named by a source (`train`, `val`, `test`, `trainval`) becomes, and warnings.

    Without a part for training and a part held out, all images are divided again. If only `val` is held out, it
    serves as `test`; if nothing is left for `val`, a part of `train` becomes `val`.
    """
    learnt, named = present & {"train", "trainval"}, ", ".join(sorted(present))
    if "test" in present and learnt:
        one = {"train": "train" if "val" in present else "trainval", "val": "val"}
        return {**one, "trainval": "trainval", "test": "test"}, []
    if "val" in present and learnt:
        line = f"the source has no test split ({named}): its val serves as test, and a part of its train becomes val"
        return {"train": "trainval", "trainval": "trainval", "val": "test"}, [line]
    line = f"the source has nothing to train on or nothing held out ({named}): all images are divided again"
    return dict.fromkeys(present), [line] if present else []


def _examine(folder: Path, progress: Progress, look: Look) -> list[File]:
    """Check every path below `folder`, in sorted order, in several threads."""
    paths = sorted(_walk(folder), key=os.fsencode)
    check = partial(_check, folder=folder, look=look)
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    found: list[File] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of every odd file; what matters becomes a reason
            for file in pool.map(check, paths):
                found.append(file)
                progress(len(found), len(paths), "checked")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # on Ctrl-C, finish only what has been started
    return found


def _walk(folder: Path, start: str = "") -> Iterator[str]:
    """The relative paths, with `/`, of everything below `folder` except real folders (links to folders count)."""
    pending = [start]
    while pending:
        prefix = pending.pop()
        try:
            entries = list(os.scandir(folder / prefix))
        except PermissionError:
            raise InputError(f"{folder / prefix}: the folder cannot be read: fix its permissions") from None
        for entry in entries:
            relative = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{relative}/")
            else:
                yield relative


def _check(relative: str, folder: Path, look: Look) -> File:
    path = folder / relative
    sha256 = None
    try:
        content, sha256 = _load(path, folder)
        if content is None:
            raise Rejected(f"larger than {MAX_BYTES >> 20} MiB")
        return File(relative, path, sha256, look(relative, content))
    except Rejected as error:
        return File(relative, path, sha256, reason=str(error))


def _load(path: Path, folder: Path) -> tuple[bytes | None, str]:
    """The content (None if larger than MAX_BYTES) and its sha256. Raises `Rejected` if it is not a readable file."""
    try:
        if path.is_symlink():
            if not path.exists():
                raise Rejected("broken symbolic link")
            if not path.resolve().is_relative_to(folder):
                raise Rejected("symbolic link to outside the folder")
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise Rejected("symbolic link to a folder" if stat.S_ISDIR(mode) else "not a regular file")
        # If it has become a FIFO in the meantime, O_NONBLOCK keeps the call from waiting for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size > MAX_BYTES:
                return None, hashlib.file_digest(file, "sha256").hexdigest()
            content = file.read()
            return content, hashlib.sha256(content).hexdigest()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise Rejected(f"not readable: {getattr(error, 'strerror', None) or error}") from None


def _digest(files: list[File]) -> str:
    total = hashlib.sha256()
    for file in files:
        if file.sha256 is not None:
            total.update(os.fsencode(file.relative) + b"\0" + file.sha256.encode() + b"\n")
    return total.hexdigest()


def _read_again(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: changed while it was imported ({error.strerror}): run the command again") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path}: changed while it was imported: run the command again")
    return content


def _changes(file: File) -> list[str]:
    assert file.facts is not None
    changes = list(file.facts.conversions)
    suffix = Path(file.relative).suffix.lower()
    if suffix not in SUFFIXES[file.facts.format]:
        name = f"a {suffix} name" if suffix else "a name without extension"
        changes.insert(0, f"{file.facts.format} content under {name}")
    return changes
