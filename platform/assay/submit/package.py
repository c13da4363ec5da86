"""What a job takes along: the project's files, the code of Assay that runs here, and what identifies both.

Two archives, since Ray puts the files of a job and the modules of a job in different places: `project` becomes the
working directory of the job's processes on every node, and `code` takes precedence over whatever is installed there.
The same files give the same bytes, so that Ray stores each archive once.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from assay.errors import InputError
from assay.redaction import redact, secrets_of
from assay.state import PACKAGE
from assay.submit.selection import CACHES, looks_like_key, select
from assay.tracking.provenance import CodeState, code_state

LIMIT = 5_000_000
"""The most bytes that a package may have, compressed."""

RAW_LIMIT = 10 * LIMIT
"""Projects with more uncompressed bytes are refused before they are compressed."""

SETTINGS = ("params.yaml", "dvc.yaml", "dvc.lock", ".dvc/config")
"""Files that never need a password or a token; elsewhere, text that looks like one may be a test or a page."""

_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Archive:
    """A zip file in memory. `uri` is Ray's name for it."""

    content: bytes

    @property
    def name(self) -> str:
        return f"_ray_pkg_{hashlib.sha256(self.content).hexdigest()[:32]}.zip"

    @property
    def uri(self) -> str:
        return f"gcs://{self.name}"


@dataclass(frozen=True)
class Package:
    """The code of a job. `keys` were left out because they look like keys."""

    project: Archive
    code: Archive
    commit: str
    dirty: bool
    keys: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.project.content) + len(self.code.content)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.project.name}{self.code.name}".encode()).hexdigest()


def pack(root: Path, named: Iterable[str] = (), environment: Mapping[str, str] = os.environ) -> Package:
    """The package of a project in its present state.

    Args:
        named: files that the job's config names, relative to `root`.
        environment: its secrets are known; a file that holds one is refused.

    Raises:
        InputError: it is too large, holds a secret, or has a link that leads out of the project.
    """
    import assay

    names, keys = select(root, named)
    source = Path(assay.__file__).resolve().parent
    inside = [path for path in _modules(source) if not looks_like_key(path.name)]
    own = {path.resolve() for path in inside}
    project = {name: root / name for name in names if (root / name).resolve() not in own}
    code = {f"assay/{path.relative_to(source).as_posix()}": path for path in inside}
    _require_small(project)
    state, secrets = code_state(root), secrets_of(environment)
    contents = {name: path.read_bytes() for name, path in project.items()}
    modules = {name: path.read_bytes() for name, path in code.items()}
    _require_no_secret({**contents, **modules}, secrets)
    contents[PACKAGE] = _describe(state, environment)
    package = Package(_zip(contents, project), _zip(modules, code), state.commit, bool(state.diff), tuple(keys))
    if package.size > LIMIT:
        raise InputError(_too_large(project, f"{package.size / 1e6:.1f} MB compressed"))
    return package


def _describe(state: CodeState, environment: Mapping[str, str]) -> bytes:
    """What `code_state` reads if there is no git. The removed lines of a difference may hold secrets, too."""
    diff = redact(state.diff, environment)
    report = {"commit": state.commit, "diff": diff, "diff_sha256": state.diff_sha256}
    return json.dumps({**report, "redacted": state.redacted or diff != state.diff}, indent=1).encode()


def _modules(source: Path) -> Iterator[Path]:
    """The files of the package that is imported here, in order."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and not CACHES & set(path.relative_to(source).parts):
            yield path


def _zip(contents: Mapping[str, bytes], paths: Mapping[str, Path]) -> Archive:
    """The same names and bytes give the same archive, at any time and on any machine."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            runs = name in paths and os.access(paths[name], os.X_OK)
            entry.external_attr = (0o755 if runs else 0o644) << 16
            archive.writestr(entry, contents[name])
    return Archive(file.getvalue())


def _require_small(project: Mapping[str, Path]) -> None:
    total = sum(path.stat().st_size for path in project.values())
    if total > RAW_LIMIT:
        raise InputError(_too_large(project, f"{total / 1e6:.1f} MB"))


def _too_large(project: Mapping[str, Path], size: str) -> str:
    sizes = sorted(((path.stat().st_size, name) for name, path in project.items()), reverse=True)
    largest = ", ".join(f"{name} ({bytes_ / 1e6:.1f} MB)" for bytes_, name in sizes[:3])
    return (
        f"the job's package has {size}, the most is {LIMIT / 1e6:g} MB; the largest files: {largest}: "
        "add what is not code to .gitignore (data belong in DVC), or take it out of the repository"
    )


def _require_no_secret(contents: Mapping[str, bytes], secrets: Mapping[str, str]) -> None:
    for name, content in contents.items():
        for value, variable in secrets.items():
            if value.encode() in content:
                raise InputError(
                    f"{name}: holds the value of the environment variable {variable}: take it out of the file, "
                    "or add the file to .gitignore; set it in the environment of the cluster's nodes"
                )
    for name in SETTINGS:
        text = contents.get(name, b"").decode(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if redact(line) != line:
                raise InputError(
                    f"{name}, line {number}: looks like a password or a token: set it in the environment of the "
                    "cluster's nodes (for DVC: `dvc remote modify --local`)"
                )
