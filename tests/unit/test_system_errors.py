"""What the system refuses is one line with the path and the fix; a defect stays a defect."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from safetensors import SafetensorError

from assay import system_errors
from assay.errors import AssayError, InputError, Unavailable, WorkError
from assay.system_errors import explained, explaining, refusal, require_room, sqlite_failure


def raised_from(outer: Exception, cause: Exception) -> Exception:
    outer.__cause__ = cause
    return outer


def raised_while(outer: Exception, handled: Exception) -> Exception:
    outer.__context__ = handled
    return outer


def of_system(code: int, *paths: str) -> OSError:
    return OSError(code, os.strerror(code), *(paths[:1] + (None,) * (len(paths) > 1) + paths[1:]))


FULL, READ_ONLY = of_system(errno.ENOSPC, "/p/file"), of_system(errno.EROFS, "/p/.assay/x")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FULL, "/p/file: the disk is full: make room on its file system"),
        (of_system(errno.ENOSPC, "/from", "/to"), "/to: the disk is full"),
        (of_system(errno.EDQUOT, "/p"), "/p: the disk quota is used up: "),
        (READ_ONLY, "/p/.assay/x: the file system is read-only: make it writable"),
        (of_system(errno.EACCES, "/p"), "/p: permission denied: give this user the right"),
        (of_system(errno.EMFILE, "/p"), "/p: too many open files: raise the limit"),
        (of_system(errno.EIO, "/p"), "/p: the disk cannot be read or written: check the disk"),
        (of_system(errno.ENOENT, "/p"), "/p: no such file or folder: restore it"),
        (of_system(errno.ELOOP, "/p"), "/p: too many levels of symbolic links: "),
        (raised_from(RuntimeError("the library says"), FULL), "/p/file: the disk is full"),
        (raised_while(KeyError("x"), FULL), "/p/file: the disk is full"),
        (
            RuntimeError("[Errno 28] Error writing. Detail: [errno 28] No space left on device: '/p/f'"),
            "/p/f: the disk",
        ),
        (RuntimeError("ArrowInvalid: No space left on device: '/p/f'"), "/p/f: the disk is full"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "{near}: the d"),
        (sqlite3.OperationalError("database or disk is full"), "{near}: the disk is full"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "{near}: the file system is read-only"),
        (of_system(errno.ENOSPC), "{near}: the disk is full"),
    ],
)
def test_each_error_of_the_system_has_a_line(
    error: Exception, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "elsewhere"))
    failure = explained(error, tmp_path)
    assert isinstance(failure, WorkError)
    assert str(failure).startswith(says.format(near=tmp_path)), failure
    assert str(failure).endswith(", then give the same command again")


def test_an_error_without_a_path_is_where_the_project_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_PROJECT", str(tmp_path))
    assert str(explained(of_system(errno.EROFS))).startswith(f"{tmp_path}/.assay: ")


def test_a_program_that_is_missing_is_no_file_that_is_missing() -> None:
    with pytest.raises(InputError, match="no-such-program: this program is not installed"), explaining():
        subprocess.run(["no-such-program"])
    assert isinstance(explained(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")), Unavailable)


def test_defects_and_known_failures_stay_what_they_are() -> None:
    assert explained(KeyError("x")) is None
    assert explained(raised_while(KeyError("x"), of_system(errno.ENOENT, "/p"))) is None
    assert refusal(of_system(errno.ENOENT, "/p")) is None
    known = InputError("wrong")
    assert explained(known) is known
    assert explained(raised_from(RuntimeError("a library"), known)) is known
    with pytest.raises(KeyError), explaining():
        raise KeyError("x")
    with pytest.raises(InputError) as found, explaining():
        raise known
    assert found.value is known


def test_on_a_full_disk_an_error_that_hides_why_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_room(tmp_path)
    monkeypatch.setattr(system_errors, "_room", lambda place: 999_999)
    says = f"{tmp_path}: the disk is full: make room on its file system, then give the same command again"
    assert str(explained(RuntimeError("Timed out while starting"), tmp_path)) == says
    assert str(explained(KeyError("x"), tmp_path)) == says
    with pytest.raises(WorkError, match=f"^{tmp_path}: the disk is full"):
        require_room(tmp_path)
    require_room(tmp_path, 1000)


def test_a_database_is_named(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"

    def said(text: str) -> AssayError | None:
        return sqlite_failure(sqlite3.OperationalError(text), database)

    assert str(said("database or disk is full")).startswith(f"{database}: the disk is full: ")
    assert str(said("unable to open database file")).startswith(f"{database}: permission denied: ")
    assert str(said("file is not a database")) == f"{database}: damaged: restore it from a copy"
    assert said("database is locked") is None
