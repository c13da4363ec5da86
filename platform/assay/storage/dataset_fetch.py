"""Fetches what a node lacks of a dataset version from the DVC remote: several files at a time, each continued where a
broken connection or a kill left it.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from assay.data.version import recorded_hash
from assay.errors import InputError, WorkError
from assay.progress import PlainProgress
from assay.storage.dataset_cache import Place, amount, link
from assay.storage.dvc_remote import DamagedListing, Remote, check_version, open_remote

BLOCK = 4 * 2**20
STREAMS = 4
"""Files that are fetched at a time."""


def missing_in_remote(root: Path, name: str) -> list[str]:
    """What the default DVC remote lacks of the recorded version of a dataset; empty if nothing.

    `dvc push data@NAME` sends what is missing.

    Raises:
        InputError: the dataset has no recorded version, or nodes cannot use the project's remote.
        WorkError: the remote has the version damaged or in part, or refuses the credentials.
        Unavailable: the remote does not answer.
    """
    version = recorded_hash(root, name)
    if version is None:
        raise InputError(f"dataset {name!r} has no recorded version: run `dvc repro data@{name}`")
    check_version(version)
    remote = open_remote(root, shipped=True)
    files = _listing(remote, name, version)
    if files is None:
        return [remote.shown(version)]
    _sizes(remote, name, version, files.values(), files)
    return []


def listing(remote: Remote, place: Place) -> dict[str, str]:
    """The files of a version with their md5. Raises `WorkError` if it was never pushed, or is damaged."""
    files = _listing(remote, place.name, place.version)
    if files is None:
        raise WorkError(_never_pushed(place, remote))
    return files


def fetch(place: Place, remote: Remote, files: Mapping[str, str], missing: Mapping[str, str]) -> None:
    """Bring the missing files of a version to their place, each verified.

    Args:
        files: of the version, the md5 of each; those that are not missing are in `place.target` or its folder.

    Raises:
        InputError: the version is larger than the node's cache may be.
        WorkError: the remote lacks files or has damaged ones, or the disk is full.
        Unavailable: the remote does not answer, or versions in use fill the cache.
    """
    sizes = _sizes(remote, place.name, place.version, missing.values(), files)
    here = sum(_bytes(place, path) for path in files.keys() - missing.keys())
    place.size = here + sum(sizes[md5] for md5 in missing.values())
    place.reserve(sum(sizes.values()))
    if missing:
        _Fetch(place, remote, missing, sizes).run()


def _bytes(place: Place, path: str) -> int:
    """Of a file that is not missing."""
    for at in (place.part / "files" / path, place.folder / path):
        if at.exists():
            return at.stat().st_size
    return 0


class _Fetch:
    """Several streams, one for each file, and how far they are together. The first that fails stops the others."""

    def __init__(self, place: Place, remote: Remote, missing: Mapping[str, str], sizes: Mapping[str, int]) -> None:
        self.place, self.remote, self.sizes = place, remote, sizes
        self.paths: defaultdict[str, list[str]] = defaultdict(list)
        for path, md5 in missing.items():
            self.paths[md5].append(path)
        self.copied = dict.fromkeys(sizes, 0)
        self.progress = PlainProgress(f"dataset {place.name}:", place.log, amount, last=False)
        self.turn, self.stopped = threading.Lock(), threading.Event()

    def run(self) -> None:
        began, before = time.monotonic(), self._written()
        with ThreadPoolExecutor(STREAMS, "fetch") as pool:
            try:
                futures = [pool.submit(self._one, md5) for md5 in self.sizes]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            finally:
                self.stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
        seconds, total = time.monotonic() - began, sum(self.sizes.values())
        kept = f", {amount(before)} of it by an earlier try" if before else ""
        self.place.log(
            f"dataset {self.place.name}: {amount(total)} fetched in {seconds:.0f} s{kept}, kept in {self.place.folder}"
        )

    def _written(self) -> int:
        """The bytes of the unfinished files, left by an earlier try."""
        return sum(at.stat().st_size for md5 in self.sizes if (at := self.place.partial(md5)).exists())

    def _one(self, md5: str) -> None:
        if self.stopped.is_set():
            return
        try:
            self._bring(md5)
        except BaseException:
            self.stopped.set()
            raise

    def _bring(self, md5: str) -> None:
        """Fetch a file, for as long as the remote sends something now and then, and put it in its place."""
        for _ in range(2):  # a mistake of an earlier try is no damage of the remote
            if self.remote.retry(partial(self._copy, md5), lambda: self.copied[md5], self.stopped.wait):
                break
        else:
            fix = _repair_remote(self.remote, self.place.name, self.place.version, md5)
            what = f"{self.paths[md5][0]} is damaged in the DVC remote {self.remote.name!r}"
            raise WorkError(f"dataset {self.place.name!r}: {what}: {fix}")
        if self.stopped.is_set():
            return
        with self.place.plain_errors():
            first, *others = (self.place.target(path) for path in self.paths[md5])
            for other in others:
                other.unlink(missing_ok=True)
                link(self.place.partial(md5), other)
                self.place.hashes.note(other, md5)
            self.place.partial(md5).replace(first)
            self.place.hashes.note(first, md5)

    def _copy(self, md5: str) -> bool:
        """Continue a file up to its end; returns whether it has its hash. If not, it is removed."""
        at, size = self.place.partial(md5), self.sizes[md5]
        digest = hashlib.md5(usedforsecurity=False)
        with self.place.plain_errors(), at.open("ab+", buffering=0) as target:
            if target.seek(0, os.SEEK_END) > size:
                target.truncate(0)
            target.seek(0)
            while block := target.read(BLOCK):
                digest.update(block)
            have = target.tell()
            self._show(md5, have)
        if have < size:
            have = self._stream(md5, have, digest)
        if self.stopped.is_set():
            return True  # for nobody
        if have < size:
            raise ConnectionError(f"{have} of {size} bytes")
        if digest.hexdigest() != md5:
            at.unlink()
            return False
        return True

    def _stream(self, md5: str, have: int, digest: hashlib._Hash) -> int:
        """Append what a file lacks; returns how many bytes it has then."""
        with self.place.plain_errors():
            target = self.place.partial(md5).open("ab", buffering=0)  # so that a full disk fails here
        with target, self.remote.open_object(md5, have) as source:
            while not self.stopped.is_set() and (block := source.read(BLOCK)):
                digest.update(block)
                have += len(block)
                with self.place.plain_errors():
                    rest = memoryview(block)
                    while rest:
                        rest = rest[target.write(rest) :]
                self._show(md5, have)
            with self.place.plain_errors():
                os.fsync(target)
        return have

    def _show(self, md5: str, have: int) -> None:
        with self.turn:
            self.copied[md5] = have
            self.progress(sum(self.copied.values()), sum(self.sizes.values()))


def _listing(remote: Remote, name: str, version: str) -> dict[str, str] | None:
    """The files of a version with their md5; None if it was never pushed. Raises `WorkError` if it is damaged."""
    try:
        return remote.listing(version)
    except DamagedListing as error:
        raise WorkError(f"dataset {name!r}: {error}: {_repair_remote(remote, name, version)}") from None


def _sizes(remote: Remote, name: str, version: str, md5s: Iterable[str], files: Mapping[str, str]) -> dict[str, int]:
    """The bytes of each file, by md5. Raises `WorkError` if the remote lacks one."""
    wanted = list(dict.fromkeys(md5s))
    with ThreadPoolExecutor(STREAMS) as pool:
        found = dict(zip(wanted, pool.map(remote.size, wanted), strict=True))
    if lost := sorted(path for path, md5 in files.items() if md5 in found and found[md5] is None):
        raise WorkError(
            f"dataset {name!r}: the DVC remote {remote.name!r} lacks {len(lost)} of {len(files)} files ({lost[0]} …): "
            f"{_repair_remote(remote, name, version)}"
        )
    return {md5: size for md5, size in found.items() if size is not None}


def _never_pushed(place: Place, remote: Remote) -> str:
    mount = "; a folder must be mounted at the same path on every node" if remote.local else ""
    return (
        f"dataset {place.name!r}: the DVC remote {remote.name!r} has no {remote.shown(place.version)}: "
        f"run `dvc push data@{place.name}` on a machine that has the dataset{mount}"
    )


def _repair_remote(remote: Remote, name: str, version: str, *damaged: str) -> str:
    """How to repair a version. `dvc push` trusts a listing: while it exists, no file of it is sent again."""
    objects = " and ".join(remote.shown(md5) for md5 in (*damaged, version))
    return f"delete {objects}, and run `dvc push data@{name}` on a machine that has the dataset"
