"""A project's own DVC cache, read by hash: it may hold versions that are in `data/` no more."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from assay.data.version import Hashes, folder_hash
from assay.errors import InputError
from assay.storage.dvc_remote import DamagedListing, parse_listing


@dataclass(frozen=True)
class DvcCache:
    """The folder that DVC's setting `cache.dir` names, else `.dvc/cache`. `linked`: `cache.type` prefers hard links."""

    folder: Path
    linked: bool = False

    @classmethod
    def of(cls, root: Path) -> DvcCache:
        """The cache of the project at `root`. Raises `InputError` if its configuration cannot be read."""
        from dvc.config import Config, ConfigError

        try:
            configured = Config(str(root / ".dvc"))["cache"]
        except ConfigError as error:
            detail = " ".join(str(error).split()).removeprefix("config file error: ")
            raise InputError(f".dvc/config: {detail}") from None
        folder, types = configured.get("dir"), configured.get("type") or [""]
        return cls(Path(folder) if folder else root / ".dvc" / "cache", types[0] == "hardlink")

    def object(self, md5: str) -> Path:
        """Where the cache keeps a file, or a folder's listing."""
        return self.folder / "files" / "md5" / md5[:2] / md5[2:]

    def listing(self, version: str) -> dict[str, str] | None:
        """The files of a version with their md5; None if the cache has no undamaged listing of it."""
        try:
            content = self.object(version).read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != version.removesuffix(".dir"):
            return None
        try:
            return parse_listing(content, version)
        except DamagedListing:
            return None

    def lacks(self, version: str, sizes: Mapping[str, int]) -> list[Path]:
        """What the cache lacks of a version, or has only in part.

        Args:
            sizes: the bytes of each file of the version, by md5.
        """
        missing = [] if self.listing(version) is not None else [self.object(version)]
        return missing + [path for md5, size in sizes.items() if _size(path := self.object(md5)) != size]

    def meet(self, folder: Path, hashes_file: Path) -> None:
        """Prepare the cache for a new version in `folder`, before DVC records it.

        What the cache has already is linked, so that it is on the disk once; DVC links only what is new. Damaged files
        go: DVC trusts what is read-only, and would put them in the place of the good ones.
        """
        objects = Hashes(None)
        _, md5s = folder_hash(folder, hashes_file)
        known = Hashes(hashes_file)
        for path, md5 in md5s.items():
            file, stored = folder / path, self.object(md5)
            if not stored.is_file() or stored.samefile(file):
                continue
            if objects.md5(stored) != md5:
                stored.unlink()
            elif self.linked:
                _replace_by_link(file, stored)
                known.adopt(file, stored, objects)
        known.save()


def _replace_by_link(file: Path, stored: Path) -> None:
    temporary = file.with_name(f".{file.name}.link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(stored, temporary)
    except OSError:
        return  # it is on another disk
    temporary.replace(file)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
