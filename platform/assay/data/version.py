"""Versions of packed data: DVC's own hashes, computed here so that opening a dataset needs no DVC and no waiting."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from assay.errors import InputError

READ_ANEW_BYTES = 100_000_000
"""Files up to this size are read whenever their hash is asked for: it takes less than half a second, and no disk that
forgets bits, and no program that sets times, can pass off other content."""


class Hashes:
    """The md5 of files. Large ones are read once and then known by path, size, modification time and inode.

    `file` keeps them between processes; None: every file is read. Use `save` at the end.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._kept = {} if file is None else _read_cache(file)
        self._entries = dict(self._kept)

    def md5(self, path: Path) -> str:
        """Of a file's content; a large one is only read if it is new or has changed."""
        identity, known = identity_of(path), self._entries.get(_key(path))
        large = identity[0] > READ_ANEW_BYTES
        md5 = known[3] if large and known is not None and known[:3] == identity else _md5(path)
        self._entries[_key(path)] = [*identity, md5]
        return str(md5)

    def note(self, path: Path, md5: str) -> None:
        """Take the md5 of a file that this process has just written and verified as known."""
        self._entries[_key(path)] = [*identity_of(path), md5]

    def adopt(self, path: Path, other: Path, hashes: Hashes) -> None:
        """Know of `path`, a hard link, what `hashes` know of `other`. If it is another file, it is read later."""
        if (entry := hashes._entries.get(_key(other))) is not None:
            self._entries[_key(path)] = entry

    def identity(self, path: Path) -> list[int]:
        """As `identity_of` found it when the hash was asked for last; now, if it never was."""
        entry = self._entries.get(_key(path))
        return identity_of(path) if entry is None else entry[:3]

    def within(self, folder: Path) -> dict[Path, str]:
        """What is known of the files in a folder, without looking at them: the md5 of each."""
        prefix = f"{_key(folder)}{os.sep}"
        return {Path(key): str(entry[3]) for key, entry in self._entries.items() if key.startswith(prefix)}

    def keep(self, folder: Path, files: Iterable[Path]) -> None:
        """Forget what is not among the files of a folder."""
        prefix, here = f"{_key(folder)}{os.sep}", {_key(path) for path in files}
        self._entries = {k: entry for k, entry in self._entries.items() if k in here or not k.startswith(prefix)}

    def save(self) -> None:
        if self._file is not None:
            _write_cache(self._file, self._kept, self._entries)
            self._kept = dict(self._entries)


def folder_hash(folder: Path, cache_file: Path | None) -> tuple[str, dict[str, str]]:
    """DVC 3's hash of a folder, `<md5>.dir`, and the md5 of each file below it by relative path.

    `cache_file` keeps the md5 of large files whose path, size, modification time and inode are unchanged. Without it,
    all files are read.
    """
    hashes = Hashes(cache_file)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    md5s = {path.relative_to(folder).as_posix(): hashes.md5(path) for path in files}
    hashes.keep(folder, files)
    hashes.save()
    return listing_hash(md5s), md5s


def fix(name: str) -> str:
    """What to do about a version that is damaged, for the end of a line."""
    return f"run `dvc checkout data@{name}` to go back, or `dvc repro --force data@{name}` to prepare it again"


def listing_hash(md5s: Mapping[str, str]) -> str:
    """DVC's hash of a folder with these files, the md5 of each by relative path."""
    text = json.dumps([{"md5": md5s[relative], "relpath": relative} for relative in sorted(md5s)], sort_keys=True)
    return f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}.dir"


def recorded_hash(root: Path, name: str) -> str | None:
    """The hash that `dvc.lock` records for a dataset, None if there is none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    lock = root / "dvc.lock"
    try:
        data = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"dvc.lock: not readable: {detail}: run `git checkout dvc.lock`") from None
    try:
        outs = data["stages"][f"data@{name}"]["outs"]
        return next((str(out["md5"]) for out in outs if out["path"] == f"data/{name}"), None)
    except (KeyError, TypeError):
        return None


def recorded_versions(root: Path) -> set[str]:
    """The hashes of all folders that `dvc.lock` names, the versions of datasets among them."""
    try:
        return set(re.findall(r"\b[0-9a-f]{32}\.dir\b", (root / "dvc.lock").read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return set()


def _key(path: Path) -> str:
    return str(path.resolve())


def identity_of(path: Path) -> list[int]:
    """The size, modification time and inode of a file, by which a change is noticed without reading it."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _read_cache(path: Path) -> dict[str, list[Any]]:
    """What is in the cache: nothing if the file is missing or damaged, since it can be rebuilt."""
    from assay.files import load_json

    try:
        data = load_json(path.read_bytes())
        return {key: entry for key, entry in data.items() if len(entry) == 4}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write_cache(path: Path, old: dict[str, list[Any]], new: dict[str, list[Any]]) -> None:
    from assay.files import write_atomic

    if new == old:
        return
    try:
        write_atomic(path, json.dumps(new).encode())
    except OSError:
        return  # a read-only project is still readable, only slower
