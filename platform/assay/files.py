"""Files that are either whole or missing: written next to the target, synced, renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from assay.errors import InputError


def write_atomic(path: Path, content: bytes) -> None:
    """Replace the content of `path` whole or not at all. Keeps permissions, and follows a symbolic link."""
    path = path.resolve()
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(path.parent)


def _umask() -> int:
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []:
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


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
    clear_leftovers(target)
    folder = target.parent / f".{target.name}.new-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def swapped(folder: Path, target: Path) -> Iterator[None]:
    """Put `folder` in the place of `target`; if the block fails, put everything back."""
    old = target.parent / f".{target.name}.old-{os.getpid()}"
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


def clear_leftovers(target: Path) -> None:
    """Remove what a killed process left next to `target`; put its old version back if the new one never arrived."""
    import psutil

    for kind in ("old", "new"):
        for leftover in target.parent.glob(f".{target.name}.{kind}-*"):
            pid = leftover.name.rpartition("-")[2]
            if not pid.isdigit() or psutil.pid_exists(int(pid)):
                continue
            if kind == "old" and not target.exists():
                leftover.rename(target)
            else:
                shutil.rmtree(leftover, ignore_errors=True)
