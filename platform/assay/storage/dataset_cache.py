"""The dataset versions on a node of a cluster: a folder for each, shared by all processes, within a limit.

Next to a version's folder `<md5>.dir` there are hidden files:
`.<md5>.dir.used`: a lock that all processes using or fetching the version share until they end, and that a process
    needs exclusively to remove it; its time is that of the last use. The kernel frees the locks of dead processes.
`.<md5>.dir.fetch`: the lock of the process that fetches or repairs the version.
`.<md5>.dir.part`: what is being fetched; it takes its full size from the beginning.
`.<md5>.dir.hashes.json`: shows changed files without reading them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from assay.data.version import folder_hash
from assay.errors import InputError, Unavailable, WorkError
from assay.log import Log

_FULL = (errno.ENOSPC, errno.EDQUOT)
_used_here: dict[Path, BinaryIO] = {}
"""The locks of the versions that this process uses. Kept open, as it may open their files at any time."""


@dataclass
class Place:
    """A version's place in this node's cache. `size`: of all its files in bytes, once it is known."""

    name: str
    version: str
    cache: Path
    limit: int
    log: Log
    size: int = 0

    @property
    def folder(self) -> Path:
        return self.cache / self.version

    @property
    def part(self) -> Path:
        return self.hidden("part")

    def hidden(self, kind: str, version: str | None = None) -> Path:
        return self.cache / f".{version or self.version}.{kind}"

    def found(self) -> tuple[str, dict[str, str]]:
        """The hash of the folder as it is now, and the md5 of each file."""
        return folder_hash(self.folder, self.hidden("hashes.json"))

    def use(self) -> None:
        """Keep the version from being removed until this process ends."""
        self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.cache.stat().st_uid not in (0, os.getuid()):  # who could put anything in it
            raise InputError(f"ASSAY_DATA_CACHE: {self.cache} belongs to another user: set it to one of your folders")
        path = self.hidden("used")
        if path not in _used_here:
            file = path.open("ab")
            _lock(file, fcntl.LOCK_SH)  # waits if another process is removing it
            _used_here[path] = file
        os.utime(path)

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Be the only process on this node that fetches or repairs the version; leave nothing incomplete."""
        with self.hidden("fetch").open("ab") as file:
            if not _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                self.log(f"dataset {self.name}: another process on this node is fetching it")
                _lock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                shutil.rmtree(self.part, ignore_errors=True)

    def reserve(self, sizes: Mapping[str, int]) -> None:
        """Make room for the missing files and take it at once, so that fetches of other versions count it."""
        with (self.cache / ".room").open("ab") as file:
            _lock(file, fcntl.LOCK_EX)
            shutil.rmtree(self.part, ignore_errors=True)  # of a fetch that was killed
            self._make_room(sum(sizes.values()))
            self.part.mkdir()
            for path, size in sizes.items():
                target = self.part / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as empty:
                    if size:
                        os.posix_fallocate(empty.fileno(), 0, size)

    def _make_room(self, needed: int) -> None:
        """Remove the least recently used versions, but none in use, until the limit and the disk suffice."""
        others = {version: self._taken(version) for version in self._versions() - {self.version}}

        def fits() -> bool:
            return sum(others.values()) + self.size <= self.limit and shutil.disk_usage(self.cache).free >= needed

        for version in sorted(others, key=self._last_used):
            with self.hidden("used", version).open("ab") as file:
                if _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    self._clear(version, keep=fits())
                    others[version] = self._taken(version)
        if fits():
            return
        if (left := self.limit - sum(others.values())) < self.size:
            raise Unavailable(
                f"ASSAY_DATA_CACHE_GB={self.limit / 1e9:g}: dataset {self.name!r} takes {amount(self.size)}, but "
                f"the versions that are in use leave {amount(max(left, 0))} of {self.cache}: wait, or set it higher"
            )
        raise self._full(f"{amount(needed)} needed, {amount(shutil.disk_usage(self.cache).free)} free")

    def _clear(self, version: str, keep: bool) -> None:
        """Remove what a killed fetch left of an unused version, and the version itself unless `keep`."""
        part = self.hidden("part", version)
        shutil.rmtree(part, ignore_errors=True)
        if not keep and (self.cache / version).exists():
            (self.cache / version).rename(part)  # in one step, so that no half version remains
            self.hidden("hashes.json", version).unlink(missing_ok=True)
            shutil.rmtree(part)

    def _versions(self) -> set[str]:
        found = (path.name for pattern in ("*.dir", ".*.dir.part") for path in self.cache.glob(pattern))
        return {name.removeprefix(".").removesuffix(".part") for name in found}

    def _taken(self, version: str) -> int:
        """Bytes of a version and of its unfinished fetch; other processes may be moving them."""
        total = 0
        for folder in (self.hidden("part", version), self.cache / version):
            for path in folder.rglob("*"):
                try:
                    total += path.stat().st_size if path.is_file() else 0
                except FileNotFoundError:
                    continue
        return total

    def _last_used(self, version: str) -> float:
        lock = self.hidden("used", version)
        return lock.stat().st_mtime if lock.exists() else 0.0

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Report problems with the cache's disk in one line."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise self._full(f"{amount(self.size)} needed in all: {error.strerror}") from error
            raise InputError(f"ASSAY_DATA_CACHE: {self.cache} cannot be used: {error}") from error

    def _full(self, detail: str) -> WorkError:
        fix = "free some of the disk, or set ASSAY_DATA_CACHE to a folder on another one"
        return WorkError(f"dataset {self.name!r}: the disk of {self.cache} is full ({detail}): {fix}")


def _lock(file: BinaryIO, how: int) -> bool:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    return True


def amount(count: float) -> str:
    """Bytes for people."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} bytes"
