"""Opens a dataset version by content. `open_version` is the only way to data for whatever trains or evaluates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from assay.data.dataset import Dataset, read_card
from assay.data.version import Hashes, folder_hash, recorded_hash, recorded_versions
from assay.errors import AssayError
from assay.log import Log
from assay.settings import Settings
from assay.state import DATASETS, HASHES
from assay.storage.dataset_cache import Place, Store, link
from assay.storage.dataset_fetch import fetch, listing
from assay.storage.dvc_cache import DvcCache
from assay.storage.dvc_remote import Remote, check_version, open_remote


def open_version(settings: Settings, name: str, version: str, log: Log) -> Dataset:
    """Open the version of a dataset with this hash, after comparing every file with it in this process.

    It stays readable while this process lives, whatever happens to `data/NAME`: it is opened in the node's store. What
    the store lacks is linked from `data/NAME`, other versions or DVC's cache, else fetched from the DVC remote.

    Raises:
        InputError: it is nowhere, or the settings of the project or of this node do not allow fetching it.
        WorkError: the remote lacks files of it or has damaged ones, or the disk is full.
        Unavailable: the remote does not answer, or versions in use fill the cache.
    """
    place = _verified(settings, name, version, log)
    files = [path for path in place.folder.rglob("*") if path.is_file()]
    opened = {path.relative_to(place.folder).as_posix(): place.hashes.identity(path) for path in files}
    return Dataset(place.folder, read_card(place.folder, name), version, opened=opened)


def version_folder(settings: Settings, name: str, version: str, log: Log) -> Path:
    """The verified folder of a version; see `open_version`."""
    return _verified(settings, name, version, log).folder


def _verified(settings: Settings, name: str, version: str, log: Log) -> Place:
    check_version(version)
    place = Place(name, version, _store(settings), log)
    with place.plain_errors():
        place.use()
        if place.found()[0] != version:
            with place.filling():
                if place.found()[0] != version:  # no other process filled it while this one waited
                    _fill(place, settings)
        if place.store.limit is None:
            place.sweep(recorded_versions(settings.root))
    return place


def _store(settings: Settings) -> Store:
    """The project's own; for the package of a job, which is removed when the job ends, the node's."""
    if settings.packaged:
        return Store(settings.data_cache_folder.absolute(), int(settings.data_cache_gb * 1e9))
    return Store(settings.state / DATASETS)


def _fill(place: Place, settings: Settings) -> None:
    """Bring the version into its place. An existing folder is repaired while others use it."""
    nearby = _Nearby(place, settings)
    files, remote = nearby.listing(place.version), None
    if files is None:
        remote = nearby.remote()
        try:
            files = listing(remote, place)
        except AssayError as error:
            raise nearby.failure(error) from None
    here = place.found()[1]
    wanted = {path: md5 for path, md5 in files.items() if here.get(path) != md5}
    missing = {path: md5 for path, md5 in wanted.items() if not nearby.link(path, md5)}
    if here:
        place.log(f"dataset {place.name}: {place.folder} was changed; replacing {len(wanted)} files")
    if missing or place.store.limit is not None:
        remote = remote or nearby.remote()
        try:
            fetch(place, remote, files, missing)
        except AssayError as error:
            raise nearby.failure(error) from None
    place.install(files, here)


class _Nearby:
    """Where files of a version may be on this disk already: `data/NAME`, the store's other versions, DVC's cache."""

    def __init__(self, place: Place, settings: Settings) -> None:
        self.place, self.settings = place, settings
        self.local = settings.dataset_folder(place.name)
        self.found = "missing"
        self.md5s: dict[str, str] = {}
        self.known: defaultdict[str, list[tuple[Path, Hashes]]] = defaultdict(list)
        if self.local.is_dir():
            self.found, self.md5s = folder_hash(self.local, settings.state / HASHES)
            self._know(self.local, Hashes(settings.state / HASHES))
        for other in place.store.folder.glob("*.dir"):
            if other != place.folder:
                self._know(other, Hashes(place.known(other.name)))

    @cached_property
    def cache(self) -> DvcCache:
        """Importing DVC takes a second, and mostly it is not needed."""
        return DvcCache.of(self.settings.root)

    def _sources(self, md5: str) -> Iterator[tuple[Path, Hashes]]:
        """Where a file may be, each with what is known of it."""
        yield from self.known[md5]
        yield self.cache.object(md5), Hashes(None)

    def _know(self, folder: Path, hashes: Hashes) -> None:
        for path, md5 in hashes.within(folder).items():
            self.known[md5].append((path, hashes))

    def listing(self, version: str) -> dict[str, str] | None:
        """The files of the version with their md5, None if it takes the remote to tell."""
        return self.md5s if self.found == version else self.cache.listing(version)

    def link(self, path: str, md5: str) -> bool:
        """Link a file of the version into its place. False if no undamaged one is on this disk."""
        target, hashes = self.place.target(path), self.place.hashes
        if target.exists() and hashes.md5(target) == md5:  # of a fetch that was killed
            return True
        for source, known in self._sources(md5):
            target.unlink(missing_ok=True)
            try:
                link(source, target)
            except (FileNotFoundError, PermissionError):
                continue
            hashes.adopt(target, source, known)
            if hashes.md5(target) == md5:
                return True
        target.unlink(missing_ok=True)
        return False

    def remote(self) -> Remote:
        try:
            remote = open_remote(self.settings.root)
        except AssayError as error:
            raise self.failure(error) from None
        tell = f"dataset {self.place.name}: "
        return replace(remote, patient=self.settings.packaged, tell=lambda line: self.place.log(tell + line))

    def failure(self, error: AssayError) -> AssayError:
        """What says that the version is nowhere; in a job's package, which has no data, the remote's failure alone."""
        if self.settings.packaged:
            return error
        name, version = self.place.name, self.place.version
        commit = (
            "" if recorded_hash(self.settings.root, name) == version else "check out the commit that records it and "
        )
        return type(error)(
            f"dataset {name!r}: version {version} is not on this machine (data/{name} is {self.found}, and "
            f"DVC's cache lacks it) and cannot be fetched ({error}): {commit}run `dvc repro data@{name}`, or "
            f"`dvc push data@{name}` where it is"
        )
