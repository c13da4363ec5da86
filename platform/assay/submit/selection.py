"""Selects the files of a project for a job's package: code and settings; never data, caches, history or keys."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from assay.config.params import read_yaml
from assay.errors import InputError
from assay.git import git
from assay.state import PACKAGE, RAY_TOKEN, STATE

CACHES = {
    ".git", ".hg", ".svn", STATE, ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache",
    ".pytest_cache", ".hypothesis", ".import_linter_cache", ".ipynb_checkpoints", ".cache", "mlruns",
}  # fmt: skip
"""Folders with these names stay here."""

KEYS = (
    ".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.gpg",
    "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*credentials*.json", "credentials", "*credentials.y*ml",
    "service*account*.json", "*secret*.json", "*secret*.y*ml", ".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc",
    ".htpasswd", "kubeconfig", "*.kubeconfig", "config.local", RAY_TOKEN, "auth_token",
)  # fmt: skip
"""Files with these names are taken for keys, passwords and tokens, and stay here even if git tracks them."""

KEY_FOLDERS = {".ssh", ".aws", ".gnupg", ".kube", ".azure"}

OWN = ("data", "results")
"""The folders of Assay's own outputs."""


def select(root: Path, named: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """The files of a package, as paths below `root` in order; and those left out because they look like keys.

    Args:
        named: files that the job's config names: they are included even if git ignores them.

    Raises:
        InputError: a link that leads out of the project, or something that is not a file.
    """
    data = data_paths(root)
    chosen, keys = set(), []
    for name in {*_known_to_git(root), ".dvc/config", *named}:
        if not os.path.lexists(root / name) or name == PACKAGE or _stays(name, data):
            continue
        if looks_like_key(name):
            keys.append(name)
        else:
            _require_file(root, name)
            chosen.add(name)
    return sorted(chosen), sorted(keys)


def _known_to_git(root: Path) -> list[str]:
    """The files that git tracks, and new ones that it does not ignore."""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [name for name in listed.split("\0") if name]


def data_paths(root: Path) -> set[PurePosixPath]:
    """Where data lie: the outputs that DVC's files name, the raw data of `params.yaml`, and Assay's own outputs."""
    found = {PurePosixPath(name) for name in OWN}
    found |= {PurePosixPath(path) for path in _raw_data(root)}
    if (root / "dvc.lock").exists():
        stages = read_yaml(root / "dvc.lock").get("stages", {})
        found |= {PurePosixPath(out["path"]) for stage in stages.values() for out in stage.get("outs", [])}
    for name in _known_to_git(root):
        path = PurePosixPath(name)
        if path.suffix == ".dvc" and (root / name).is_file():
            found |= {path.parent / out["path"] for out in read_yaml(root / name).get("outs", [])}
    return {PurePosixPath(os.path.normpath(path)) for path in found}


def _raw_data(root: Path) -> list[str]:
    """The folders below the project with the raw data of datasets."""
    found = []
    for dataset in read_yaml(root / "params.yaml").get("datasets", {}).values():
        source = dataset.get("source") if isinstance(dataset, Mapping) else None
        path = source.get("path") if isinstance(source, Mapping) else None
        if isinstance(path, str) and (root / path).resolve().is_relative_to(root.resolve()):
            found.append((root / path).resolve().relative_to(root.resolve()).as_posix())
    return [path for path in found if path != "."]


def _stays(name: str, data: set[PurePosixPath]) -> bool:
    path = PurePosixPath(name)
    if path.suffix == ".pyc" or CACHES & set(path.parts) or path.parts[:2] in ((".dvc", "tmp"), (".dvc", "cache")):
        return True
    return any(path == folder or folder in path.parents for folder in data)


def looks_like_key(name: str) -> bool:
    """Whether a file's name suggests that it holds a secret."""
    path = PurePosixPath(name)
    lower = path.name.lower()
    return any(fnmatch(lower, pattern) for pattern in KEYS) or bool(KEY_FOLDERS & set(path.parts[:-1]))


def _require_file(root: Path, name: str) -> None:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"{name}: a link that leads out of the project: replace it with the file, or add it to .gitignore"
        )
    if not path.is_file():
        what = "a folder of another repository, or a link to a folder" if path.is_dir() else "not a regular file"
        raise InputError(f"{name}: {what}: a package takes files only; add it to .gitignore")
