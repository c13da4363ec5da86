"""Files that are either whole or missing: written next to the target, synced, renamed."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from assay.errors import InputError, last_line
from assay.owner import Owner, life_of

FORGET_SECONDS = 24 * 3600
"""Age at which what a process of another machine, or from before a restart of this one, left is removed."""
_LONGEST = 100
"""Bytes of a name to which others may be added: file systems take 255."""
_LEFTOVER = re.compile(r"\.(?P<target>.+)\.(?P<kind>new|old|gone)-(?P<owner>[0-9a-f]+-\d+-\d+)\.[0-9a-f]{8}")


def write_atomic(path: Path, content: bytes) -> None:
    """Replace the content of `path` whole or not at all. Keeps permissions, and follows a symbolic link."""
    path = path.resolve()
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "new")
    try:
        with named(path), temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _umask() -> int:
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []:
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let errors of the system in the block name `path` if they name none: writing to an open file raises such."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def read_json(path: Path, fix: str, needs: Sequence[str] = ()) -> dict[str, Any]:
    """The object that a file of Assay's own holds.

    Args:
        fix: what to do about a damaged file, as a clause: "run `assay train digits`".
        needs: names that it must have.

    Raises:
        InputError: the file is empty, cut, not JSON, no object, or lacks a name.
        OSError: it is missing, or cannot be read.
    """
    return parse_json(path.read_bytes(), str(path), fix, needs)


def load_json(content: bytes | str) -> Any:
    """What JSON holds. Raises `ValueError` for all that is none: bytes that are no text, or nested too deep, too."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def parse_json(content: bytes | str, name: str, fix: str, needs: Sequence[str] = ()) -> dict[str, Any]:
    """The object in the content of a file; `name` is what errors call the file. As `read_json`."""
    try:
        data = load_json(content)
    except ValueError as error:
        why = "it is empty" if not content.strip() else f"it is cut or no JSON: {last_line(error)}"
        raise InputError(f"{name}: damaged ({why}): {fix}") from None
    if not isinstance(data, dict):
        raise InputError(f"{name}: damaged (it holds no object): {fix}")
    if lacking := [key for key in needs if key not in data]:
        raise InputError(f"{name}: damaged (it lacks {', '.join(lacking)}): {fix}")
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace the content of `path` by readable JSON, whole or not at all."""
    write_atomic(path, f"{json.dumps(data, indent=2)}\n".encode())


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(folder: Path) -> None:
    """Create a folder that no other user can read. Raises `InputError` if somebody else has taken its name."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder}: belongs to somebody else; remove it, or set TMPDIR")
    folder.chmod(0o700)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder next to `target` to build in; removed at the end unless it was moved away."""
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(target.parent)
    folder = _beside(target, "new")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def swapped(folder: Path, target: Path) -> Iterator[None]:
    """Put `folder` in the place of `target`; if the block fails, put everything back."""
    old = _beside(target, "old")
    try:
        if target.exists():
            target.rename(old)
        folder.rename(target)
        sync(target.parent)
        yield
    except BaseException:
        if old.exists() or not folder.exists():
            shutil.rmtree(target, ignore_errors=True)
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder at once for everybody who looks, if it is there; a kill leaves what `clear_leftovers` finds."""
    gone = _beside(folder, "gone")
    with suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _beside(target: Path, kind: str) -> Path:
    """A name next to `target` that says which process made it. A long name is cut, unless it will be asked for."""
    name = target.name if kind == "old" else target.name.encode()[:_LONGEST].decode(errors="ignore")
    return target.with_name(f".{name}.{kind}-{Owner.here().label}.{secrets.token_hex(4)}")


def clear_leftovers(folder: Path) -> None:
    """Remove what dead processes left in a folder; put back what was to be replaced by something that never arrived.

    What cannot be removed stays until the next time.
    """
    for leftover in sorted(folder.glob(".*"), reverse=True):  # `.x.old-` before `.x.new-`
        found = _LEFTOVER.fullmatch(leftover.name)
        if found is None:
            continue
        with suppress(OSError):
            life, target = life_of(found["owner"]), folder / found["target"]
            if life == "alive":
                continue
            if found["kind"] == "old" and not target.exists():
                leftover.rename(target)
            elif life == "gone" or time.time() - leftover.lstat().st_ctime > FORGET_SECONDS:
                _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
