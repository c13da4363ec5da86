"""Fetches datasets to the nodes of a cluster: the version in `dvc.lock`, once per node, from the DVC remote."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from assay.data.version import folder_hash, recorded_hash, remember
from assay.errors import InputError, WorkError
from assay.files import sync
from assay.log import Log
from assay.progress import PlainProgress
from assay.settings import Settings
from assay.state import HASHES, state_folder
from assay.storage.dataset_cache import Place, amount
from assay.storage.dvc_remote import DamagedListing, Remote, check_version, open_remote

BLOCK = 4 * 2**20


def dataset_folder(root: Path, name: str, version: str, local: Path, cache: Path, limit_bytes: int, log: Log) -> Path:
    """The folder of a dataset version: `local` if it holds exactly that one, else in the cache, fetched if needed.

    It stays in the cache as long as this process lives.

    Raises:
        InputError: the settings of the project or of this node do not allow fetching it.
        WorkError: the remote lacks it or has damaged files of it, or the disk is full.
        Unavailable: the remote does not answer, or versions in use fill the cache.
    """
    check_version(version)
    if local.is_dir() and folder_hash(local, state_folder(root) / HASHES)[0] == version:
        return local
    place = Place(name, version, cache.absolute(), limit_bytes, log)
    with place.plain_errors():
        place.use()
        if place.found()[0] != version:
            with place.fetching():
                if place.found()[0] != version:  # no other process fetched it while this one waited
                    _fetch(place, open_remote(root))
    return place.folder


def fetch_dataset(settings: Settings, name: str, version: str, log: Log) -> Path:
    """`dataset_folder` of a project on this node, with this node's cache."""
    local, limit = settings.dataset_folder(name), int(settings.data_cache_gb * 1e9)
    return dataset_folder(settings.root, name, version, local, settings.data_cache_folder, limit, log)


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
    _sizes(remote, name, version, files)
    return []


def _fetch(place: Place, remote: Remote) -> None:
    """Fetch what the cache lacks of a version. An existing folder is repaired while others use it."""
    files = _listing(remote, place.name, place.version)
    if files is None:
        raise WorkError(_never_pushed(place, remote))
    sizes = _sizes(remote, place.name, place.version, files)
    place.size = sum(sizes.values())
    if place.size > place.limit:
        raise InputError(
            f"ASSAY_DATA_CACHE_GB={place.limit / 1e9:g}: dataset {place.name!r} takes {amount(place.size)}: "
            "set it higher on every node"
        )
    here = place.found()[1]
    wanted = {path: md5 for path, md5 in files.items() if here.get(path) != md5}
    if here:
        place.log(f"dataset {place.name}: {place.folder} was changed; fetching {len(wanted)} files again")
    place.reserve({path: sizes[path] for path in wanted})
    began = time.monotonic()
    total = _copy_all(place, remote, wanted, sizes)
    if here:
        _repair(place, here.keys() - files.keys(), wanted)
    else:
        shutil.rmtree(place.folder, ignore_errors=True)  # it contains no file
        place.part.rename(place.folder)
    sync(place.cache)
    remember(place.folder, place.hidden("hashes.json"), wanted)
    if place.found()[0] != place.version:
        raise WorkError(f"dataset {place.name!r}: {place.folder} changes during the fetch: find out what writes to it")
    seconds = time.monotonic() - began
    place.log(f"dataset {place.name}: {amount(total)} fetched in {seconds:.0f} s, kept in {place.folder}")


def _copy_all(place: Place, remote: Remote, wanted: Mapping[str, str], sizes: Mapping[str, int]) -> int:
    """Copy files of a version from the remote; returns their bytes."""
    progress = PlainProgress(f"dataset {place.name}:", place.log, amount, last=False)
    total, before = sum(sizes[path] for path in wanted), 0
    for path, md5 in wanted.items():

        def show(copied: int, before: int = before) -> None:
            progress(before + copied, total)

        remote.retry(partial(_copy, place, remote, md5, path, show))
        before += sizes[path]
    return total


def _copy(place: Place, remote: Remote, md5: str, path: str, show: Callable[[int], None]) -> None:
    """Copy a file of a version from the remote, and compare it with its hash."""
    digest, copied = hashlib.md5(usedforsecurity=False), 0
    with place.plain_errors():
        target = (place.part / path).open("r+b", buffering=0)  # so that a full disk fails here
    with target, remote.open_object(md5) as source:
        while block := source.read(BLOCK):
            digest.update(block)
            copied += len(block)
            with place.plain_errors():
                rest = memoryview(block)
                while rest:
                    rest = rest[target.write(rest) :]
            show(copied)
        with place.plain_errors():
            target.truncate()
            os.fsync(target)
    if digest.hexdigest() != md5:
        raise WorkError(
            f"dataset {place.name!r}: {path} is damaged in the DVC remote {remote.name!r}: "
            f"{_repair_remote(remote, place.name, place.version, md5)}"
        )


def _repair(place: Place, strange: set[str], wanted: Mapping[str, str]) -> None:
    """Replace bad files by good ones, each in one step; programs that have a bad one open keep reading it."""
    for path in strange:
        (place.folder / path).unlink()
    for path in wanted:
        (place.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (place.part / path).replace(place.folder / path)


def _listing(remote: Remote, name: str, version: str) -> dict[str, str] | None:
    """The files of a version with their md5; None if it was never pushed. Raises `WorkError` if it is damaged."""
    try:
        return remote.listing(version)
    except DamagedListing as error:
        raise WorkError(f"dataset {name!r}: {error}: {_repair_remote(remote, name, version)}") from None


def _sizes(remote: Remote, name: str, version: str, files: Mapping[str, str]) -> dict[str, int]:
    """The bytes of each file. Raises `WorkError` if the remote lacks one."""
    found = {md5: remote.size(md5) for md5 in dict.fromkeys(files.values())}
    sizes = {path: size for path, md5 in files.items() if (size := found[md5]) is not None}
    if lost := sorted(files.keys() - sizes.keys()):
        raise WorkError(
            f"dataset {name!r}: the DVC remote {remote.name!r} lacks {len(lost)} of {len(files)} files ({lost[0]} …): "
            f"{_repair_remote(remote, name, version)}"
        )
    return sizes


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
