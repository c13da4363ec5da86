"""The secrets of a project's servers: generated on first use, kept in files that only their owner can read."""

from __future__ import annotations

import json
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from assay.errors import InputError
from assay.files import read_json
from assay.state import MLFLOW_LOGINS

USER = "assay"


@dataclass(frozen=True)
class Credentials:
    """Who may log in, and the file that holds it. The secrets never show in a representation."""

    file: Path
    user: str
    password: str = field(repr=False)
    secret_key: str = field(repr=False)


def load_credentials(file: Path) -> Credentials:
    """The credentials kept in `file`, generated on first use; only its owner can read the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = {"user": USER, "password": secrets.token_urlsafe(24), "secret_key": secrets.token_urlsafe(32)}
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_credentials(file)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(new, stream, indent=2)
    return Credentials(file, **new)


def _read_credentials(file: Path) -> Credentials:
    _require_private(file)
    values = read_secrets(file)
    return Credentials(file, **values)


def read_secrets(file: Path) -> dict[str, str]:
    """User, password and secret key in `file`. Raises `InputError` if it is damaged."""
    fix, names = f"repair it, or remove it and {MLFLOW_LOGINS} next to it", ("user", "password", "secret_key")
    values = {name: value for name, value in read_json(file, fix, names).items() if name in names}
    if not all(isinstance(value, str) and value for value in values.values()):
        raise InputError(f"{file}: damaged (its values must be texts, and none empty): {fix}")
    return values


def ray_token(file: Path) -> Path:
    """The file with the token of the project's Ray, generated on first use; only its owner can read it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        _require_private(file)
        token = file.read_text(encoding="utf-8", errors="replace").strip()
        if not token or not token.isascii():
            raise InputError(f"{file}: is empty or damaged; remove it, and a new token is generated") from None
        return file
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(secrets.token_hex(32))
    return file


def _require_private(file: Path) -> None:
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{file}: must be a plain file; remove it, and new credentials are generated")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise InputError(f"{file}: others may read it (mode {stat.S_IMODE(status.st_mode):o}); run `chmod 600 {file}`")
