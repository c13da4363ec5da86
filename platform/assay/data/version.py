"""Versions of packed data: DVC's own hashes, computed here so that opening a dataset needs no DVC and no waiting."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.errors import InputError


def folder_hash(folder: Path, cache_file: Path | None) -> tuple[str, dict[str, str]]:
    """DVC 3's hash of a folder, `<md5>.dir`, and the md5 of each file below it by relative path.

    `cache_file` keeps the md5 of files whose path, size, modification time and inode are unchanged. Without it, all
    files are read.
    """
    cache = _read_cache(cache_file) if cache_file is not None else {}
    prefix = f"{folder.resolve()}{os.sep}"
    fresh: dict[str, list[Any]] = {}
    md5s: dict[str, str] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        relative = path.relative_to(folder).as_posix()
        key = f"{prefix}{relative}"
        stat = path.stat()
        identity = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        known = cache.get(key)
        md5 = known[3] if known is not None and known[:3] == identity else _md5(path)
        fresh[key] = [*identity, md5]
        md5s[relative] = md5
    if cache_file is not None:
        others = {key: entry for key, entry in cache.items() if not key.startswith(prefix)}
        _write_cache(cache_file, cache, {**others, **fresh})
    return tree_hash(md5s), md5s


def tree_hash(md5s: Mapping[str, str]) -> str:
    """DVC 3's hash of a folder that holds files with these md5, by relative path."""
    listing = [{"md5": md5s[relative], "relpath": relative} for relative in sorted(md5s)]
    text = json.dumps(listing, sort_keys=True)
    return f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}.dir"


def fix(name: str) -> str:
    """What to do about a version that is damaged, for the end of a line."""
    return f"run `dvc checkout data@{name}` to go back or `dvc repro data@{name}` to prepare it again"


def remember(folder: Path, cache_file: Path, md5s: Mapping[str, str]) -> None:
    """Cache the md5 of files that were just written and verified, so that `folder_hash` need not read them again."""
    entries: dict[str, list[Any]] = {}
    for relative, md5 in md5s.items():
        stat = (folder / relative).stat()
        key = f"{folder.resolve()}{os.sep}{relative}"
        entries[key] = [stat.st_size, stat.st_mtime_ns, stat.st_ino, md5]
    known = _read_cache(cache_file)
    _write_cache(cache_file, known, {**known, **entries})


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


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _read_cache(path: Path) -> dict[str, list[Any]]:
    """What is in the cache: nothing if the file is missing or damaged, since it can be rebuilt."""
    try:
        data = json.loads(path.read_bytes())
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
