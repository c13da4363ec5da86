"""The dataset versions on a node, by their hash: a folder for each, shared by all processes.

A project keeps those that are in use below `.assay/`; nodes that run submitted jobs keep what they fetched in a cache
of their own, within a limit. Next to a version's folder `<md5>.dir` there are hidden files:
`.<md5>.dir.used`: a lock that all processes using or filling the version share until they end, and that a process
    needs exclusively to remove it; its time is that of the last use. The kernel frees the locks of dead processes.
`.<md5>.dir.fill`: the lock of the process that fills or repairs the version.
`.<md5>.dir.part`: what is being brought there: whole and verified files in `files/`, unfinished ones in `partial/`.
    A kill leaves it, and the next process continues.
`.<md5>.dir.size`: the bytes that it will take.
`.<md5>.dir.hashes.json`: shows changed files without reading them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from assay.data.version import Hashes, folder_hash
from assay.errors import InputError, Unavailable, WorkError
from assay.files import sync
from assay.log import Log

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCKS = ("used", "fill")
_used_here: dict[Path, BinaryIO] = {}
"""The locks of the versions that this process uses. Kept open, as it may open their files at any time."""


class DiskFull(WorkError):
    """The disk of the versions is full."""


@dataclass(frozen=True)
class Store:
    """Where a node keeps versions.

    `limit`: the most bytes that they may take. None, in a project's own store: any, as its files are links to those of
    `data/` and of DVC's cache; but what is neither in use nor recorded goes.
    """

    folder: Path
    limit: int | None = None


@dataclass
class Place:
    """A version's place in this node's store. `size`: of all its files in bytes, once it is known."""

    name: str
    version: str
    store: Store
    log: Log
    size: int = 0
    hashes: Hashes = field(default_factory=lambda: Hashes(None))
    """Of the files in `part`."""

    @property
    def folder(self) -> Path:
        return self.store.folder / self.version

    @property
    def part(self) -> Path:
        return self.hidden("part")

    def hidden(self, kind: str, version: str | None = None) -> Path:
        return self.store.folder / f".{version or self.version}.{kind}"

    def known(self, version: str | None = None) -> Path:
        """The file with the hashes of a version's files."""
        return self.hidden("hashes.json", version)

    def target(self, path: str) -> Path:
        """Where a whole and verified file of the version goes first."""
        return _with_parents(self.part / "files" / path)

    def partial(self, md5: str) -> Path:
        """Where an unfinished file goes."""
        return _with_parents(self.part / "partial" / md5)

    def found(self) -> tuple[str, dict[str, str]]:
        """The hash of the folder as it is now, and the md5 of each file."""
        return folder_hash(self.folder, self.known())

    def use(self) -> None:
        """Keep the version from being removed until this process ends."""
        if self.store.limit is None:
            self.store.folder.mkdir(parents=True, exist_ok=True)
        else:
            self.store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.store.folder.stat().st_uid not in (0, os.getuid()):  # who could put anything in it
                text = f"{self.store.folder} belongs to another user: set it to one of your folders"
                raise InputError(f"ASSAY_DATA_CACHE: {text}")
        path = self.hidden("used")
        while (held := _used_here.get(path)) is None or not _is_still(path, held):
            _used_here[path] = file = path.open("ab")
            _lock(file, fcntl.LOCK_SH)  # waits if another process is removing the version
        os.utime(path)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Be the only process on this node that fills or repairs the version. A full disk is given back its room."""
        with self.hidden("fill").open("ab") as file:
            if not _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                self.log(f"dataset {self.name}: another process on this node is fetching it")
                _lock(file, fcntl.LOCK_EX)
            try:
                with self.plain_errors():
                    yield
            except DiskFull:
                shutil.rmtree(self.part, ignore_errors=True)
                raise

    def reserve(self, needed: int) -> None:
        """Make room for the version, of which `needed` bytes are still to be written; fetches of others count them."""
        if self.store.limit is not None and self.size > self.store.limit:
            raise InputError(
                f"ASSAY_DATA_CACHE_GB={self.store.limit / 1e9:g}: dataset {self.name!r} takes {amount(self.size)}: "
                "set it higher on every node"
            )
        with (self.store.folder / ".room").open("ab") as file:
            _lock(file, fcntl.LOCK_EX)
            self._make_room(needed)
            self.part.mkdir(exist_ok=True)
            self.hidden("size").write_text(str(self.size))

    def install(self, files: Mapping[str, str], here: Mapping[str, str]) -> None:
        """Make the version whole with what is in `part`. Programs that have a bad file open keep reading it.

        Args:
            files: of the version, the md5 of each.
            here: the same of the files that are in its folder now.
        """
        if here:
            for path in here.keys() - files.keys():
                (self.folder / path).unlink()
            for path in files:
                if (new := self.part / "files" / path).exists():
                    new.replace(_with_parents(self.folder / path))
        else:
            shutil.rmtree(self.folder, ignore_errors=True)  # it contains no file
            (self.part / "files").mkdir(parents=True, exist_ok=True)
            (self.part / "files").rename(self.folder)
        known = Hashes(self.known())
        for path in files:
            known.adopt(self.folder / path, self.part / "files" / path, self.hashes)
        known.save()
        shutil.rmtree(self.part, ignore_errors=True)
        self.hidden("size").unlink(missing_ok=True)
        sync(self.store.folder)
        if (found := self.found()[0]) != self.version:
            raise WorkError(
                f"dataset {self.name!r}: {self.folder} is {found} as soon as it was made {self.version}: "
                "find out what writes to it"
            )

    def sweep(self, recorded: Set[str]) -> None:
        """Remove the versions of a project that no process uses and that are not recorded any more."""
        for version in self._versions() - {self.version} - recorded:
            self._clear(version, keep=lambda: False)

    def _make_room(self, needed: int) -> None:
        """Remove the least recently used versions, but none in use, until the limit and the disk suffice."""
        others = {version: self._taken(version) for version in self._versions() - {self.version}}
        limit = self.store.limit

        def free() -> int:
            promised = sum(self._promised(version) for version in others)
            return shutil.disk_usage(self.store.folder).free - promised

        def fits() -> bool:
            return (limit is None or sum(others.values()) + self.size <= limit) and free() >= needed

        for version in sorted(others, key=self._last_used):
            self._clear(version, keep=fits)
            others[version] = self._taken(version)
        if fits():
            return
        if limit is not None and (left := limit - sum(others.values())) < self.size:
            raise Unavailable(
                f"ASSAY_DATA_CACHE_GB={limit / 1e9:g}: dataset {self.name!r} takes {amount(self.size)}, but the "
                f"versions that are in use leave {amount(max(left, 0))} of {self.store.folder}: wait, or set it higher"
            )
        raise self._full(f"{amount(needed)} needed, {amount(max(free(), 0))} free")

    def _clear(self, version: str, keep: Callable[[], bool]) -> None:
        """Remove what a killed fetch left of a version, and the version itself unless `keep`, if no process uses it."""
        path = self.hidden("used", version)
        with path.open("ab") as file:
            if _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_still(path, file):
                self._remove(version, keep())

    def _remove(self, version: str, keep: bool) -> None:
        part = self.hidden("part", version)
        shutil.rmtree(part, ignore_errors=True)
        self.hidden("size", version).unlink(missing_ok=True)
        if keep and (self.store.folder / version).exists():
            return
        if (self.store.folder / version).exists():
            (self.store.folder / version).rename(part)  # in one step, so that no half version remains
            shutil.rmtree(part)
        for kind in ("hashes.json", *_LOCKS):  # who waits for a lock sees that its file is gone
            self.hidden(kind, version).unlink(missing_ok=True)

    def _versions(self) -> set[str]:
        found = (path.name for pattern in ("*.dir", ".*.dir.part") for path in self.store.folder.glob(pattern))
        return {name.removeprefix(".").removesuffix(".part") for name in found}

    def _taken(self, version: str) -> int:
        """Bytes of a version and of its unfinished fetch, or what that will take; other processes may move them."""
        return max(self._promise(version), self._written(version))

    def _written(self, version: str) -> int:
        total = 0
        for folder in (self.hidden("part", version), self.store.folder / version):
            for path in folder.rglob("*"):
                with suppress(FileNotFoundError):
                    total += path.stat().st_size if path.is_file() else 0
        return total

    def _promise(self, version: str) -> int:
        """The bytes of an unfinished version."""
        try:
            return int(self.hidden("size", version).read_text())
        except (OSError, ValueError):
            return 0

    def _promised(self, version: str) -> int:
        """The bytes that are still to be written."""
        return max(0, self._promise(version) - self._written(version))

    def _last_used(self, version: str) -> float:
        lock = self.hidden("used", version)
        return lock.stat().st_mtime if lock.exists() else 0.0

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Report problems with the disk in one line."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise self._full(f"{amount(self.size)} needed in all: {error.strerror}") from error
            if not self._setting:  # the project's own: said like whatever else the system refuses
                raise
            raise InputError(f"{self._setting}{self.store.folder} cannot be used: {error}") from error

    def _full(self, detail: str) -> DiskFull:
        fix = "free some of the disk"
        fix += ", or set ASSAY_DATA_CACHE to a folder on another one" if self._setting else ""
        return DiskFull(f"dataset {self.name!r}: the disk of {self.store.folder} is full ({detail}): {fix}")

    @property
    def _setting(self) -> str:
        return "" if self.store.limit is None else "ASSAY_DATA_CACHE: "


def link(source: Path, target: Path) -> None:
    """A hard link; a copy where there can be none, such as on another disk.

    Raises:
        FileNotFoundError: the source is gone.
        OSError: it cannot be read, or the disk is full.
    """
    try:
        os.link(source.resolve(strict=True), target)
    except OSError as error:
        if error.errno in (errno.ENOENT, *_FULL):
            raise
        shutil.copyfile(source, target)


def _with_parents(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _lock(file: BinaryIO, how: int) -> bool:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, file: BinaryIO) -> bool:
    """Whether an open file is the one at the path: it may have been removed while this process waited for its lock."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def amount(count: float) -> str:
    """Bytes for people."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} bytes"
