"""What the operating system refused, as one line: the path, what is wrong in plain words, and the fix.

An `OSError` is found also behind what a library made of it, and by the texts of libraries that pass none on: SQLite's,
and those of libraries in Rust, such as "(os error 28)".
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.errors import AssayError, InputError, Unavailable, WorkError, causes, last_line
from assay.state import find_project, state_folder

_ROOM = {
    errno.ENOSPC: ("the disk is full", "make room on its file system"),
    errno.EDQUOT: ("the disk quota is used up", "make room, or get a larger quota"),
}
_WRITABLE = {
    errno.EROFS: ("the file system is read-only", "make it writable"),
    errno.EACCES: ("permission denied", "give this user the right to read and write it"),
    errno.EPERM: ("permission denied", "give this user the right to read and write it"),
}
_MACHINE = {
    errno.EMFILE: ("too many open files", "raise the limit, such as with `ulimit -n 65536`"),
    errno.ENFILE: ("the machine has too many open files", "end other programs"),
    errno.EIO: ("the disk cannot be read or written", "check the disk"),
    errno.ENOMEM: ("memory ran out", "end other programs, or use a smaller batch_size"),
}
_REFUSALS = {**_ROOM, **_WRITABLE, **_MACHINE}
"""Errors that no code brings about, so that they are the reason of whatever was raised while they were handled."""
_OTHERS = {
    errno.ENOENT: ("no such file or folder", "restore it"),
    errno.ENOTDIR: ("a file is where a folder must be", "move the file away"),
    errno.EISDIR: ("a folder is where a file must be", "move the folder away"),
    errno.ENOTEMPTY: ("the folder is not empty", "another command may be at work on it; wait for it"),
    errno.ESTALE: ("the network folder was exchanged by its server", "mount it again"),
    errno.ETXTBSY: ("the file is in use", "end the program that uses it"),
    errno.ENAMETOOLONG: ("the name is too long", "use a shorter one"),
}
_SQLITE = {
    "database or disk is full": errno.ENOSPC,
    "readonly database": errno.EROFS,
    "unable to open database file": errno.EACCES,
    "disk I/O error": errno.EIO,
}
_LITTLE = 1_000_000
"""Bytes: with less room than this, a disk is full."""
_TEXTS = {**_SQLITE, **{os.strerror(code): code for code in (*_ROOM, errno.EROFS, errno.EMFILE)}}
_NUMBER = re.compile(r"(?:\[errno |\bos error )(\d+)", re.IGNORECASE)
_PATH = re.compile(r"'(/[^']+)'")


@contextmanager
def explaining() -> Iterator[None]:
    """Raise what `explained` makes of an error of the block, from that error."""
    try:
        yield
    except Exception as error:
        failure = explained(error)
        if failure is None or failure is error:
            raise
        raise failure from error


def explained(error: BaseException, near: Path | None = None) -> AssayError | None:
    """The failure that an error means to the user, itself if it is one already; None for a defect.

    Where a disk is full, any error counts as that: libraries do not always say so.

    Args:
        near: a folder that was written to, for errors that name no path. Default: the project's local state.
    """
    if isinstance(error, AssayError):
        return error
    if (failure := refusal(error, near)) is not None:
        return failure
    for link in causes(error):
        if isinstance(link, AssayError):
            return link
        if isinstance(link, OSError):
            return _of_system(link)
    return _too_full(_guess(errno.ENOSPC, near), _LITTLE)


def require_room(folder: Path, size: int = _LITTLE) -> None:
    """For libraries that end the process where a disk is full, or do not say so.

    Raises:
        WorkError: there is less room for `folder` than this many bytes.
    """
    if (failure := _too_full(folder, size)) is not None:
        raise failure


def refusal(error: BaseException, near: Path | None = None) -> WorkError | None:
    """The failure if the disk or the machine refused something: no room, no right, too many files."""
    for link in causes(error, implied=True):
        code = _code(link)
        if code is not None:
            path = _path(link, code) or _guess(code, near)
            return WorkError(_line(path, *_REFUSALS[code]))
    return None


def sqlite_failure(error: BaseException, database: Path) -> AssayError | None:
    """The failure if SQLite cannot use its file; None for anything else."""
    text = str(error)
    for words, code in _SQLITE.items():
        if words in text:
            return WorkError(_line(database, *_REFUSALS[_why(code, database)]))
    if "file is not a database" in text or "disk image is malformed" in text:
        return InputError(f"{database}: damaged: restore it from a copy")
    return None


def _why(code: int, database: Path) -> int:
    """What is wrong: to SQLite, a full disk is an I/O error, too, and a read-only one a file that it cannot open."""
    if code in (errno.EIO, errno.EACCES) and _room(database) < _LITTLE:
        return errno.ENOSPC
    read_only = database.parent.is_dir() and os.statvfs(database.parent).f_flag & os.ST_RDONLY
    return errno.EROFS if code == errno.EACCES and read_only else code


def _code(error: BaseException) -> int | None:
    """The number of a refusal; None if the error is none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _REFUSALS else None
    text = str(error)
    if number := _NUMBER.search(text):
        return int(number[1]) if int(number[1]) in _REFUSALS else None
    return next((code for words, code in _TEXTS.items() if words in text), None)


def _path(error: BaseException, code: int) -> str:
    """The path that an error names; of two, that of the copy, which is what finds no room."""
    named = [name for name in (getattr(error, "filename", None), getattr(error, "filename2", None)) if name is not None]
    if named:
        chosen = named[-1] if code in _ROOM else named[0]
        return os.fsdecode(chosen) if isinstance(chosen, (str, bytes, os.PathLike)) else ""
    found = _PATH.search(str(error))
    return found[1] if found else ""


def _too_full(place: Path, size: int) -> WorkError | None:
    """The failure if there is less room than this many bytes."""
    return WorkError(_line(place, *_REFUSALS[errno.ENOSPC])) if _room(place) < size else None


def _guess(code: int, near: Path | None) -> Path:
    """Where an error that names no path happened: where there is the least room, or where commands write at all."""
    if near is None:
        try:
            near = state_folder(find_project())
        except InputError:
            near = Path.cwd()
    places = [near, Path(tempfile.gettempdir())] if code in _ROOM else [near]
    return min(places, key=_room)


def _room(place: Path) -> int:
    existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def _of_system(error: OSError) -> AssayError:
    """The failure behind any other error of the system."""
    if isinstance(error, FileNotFoundError) and _starts_program(error):
        return InputError(f"{error.filename}: this program is not installed, or not on PATH: install it")
    if error.errno is None or (error.filename is None and isinstance(error, (ConnectionError, TimeoutError))):
        return Unavailable(f"{type(error).__name__}: {last_line(error)}")
    what, fix = _OTHERS.get(error.errno, ((error.strerror or "the system refused").lower(), "remove the cause"))
    path = _path(error, error.errno)
    if error.errno == errno.ENOTDIR:  # the file is above what was asked for
        path = next((str(folder) for folder in Path(path).parents if folder.is_file()), path)
    return WorkError(_line(path or "the operating system", what, fix))


def _starts_program(error: OSError) -> bool:
    """Whether the error comes from starting a program, whose name looks like that of a file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and Path(trace.tb_frame.f_code.co_filename).name == "subprocess.py"


def _line(path: str | Path, what: str, fix: str) -> str:
    return f"{path}: {what}: {fix}, then give the same command again"
