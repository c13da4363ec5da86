"""Reports why this program failed, in the file that `ASSAY_ERROR_FILE` names: DVC does not pass the reason on.

The file holds `code`, `message` and `retry` (whether trying again can help). From the start it says that the program
was killed, and it is removed if all goes well; so a flow can distinguish killed, failed and never started.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.errors import AssayError, Unavailable
from assay.files import write_atomic
from assay.signals import INTERRUPTED

FILE = "ASSAY_ERROR_FILE"


@contextmanager
def failure_reported() -> Iterator[None]:
    """Keep the file up to date while the block runs. Programs that this one starts do not inherit the variable."""
    named = os.environ.pop(FILE, None)
    if named is None:
        yield
        return
    path = Path(named)
    _write(path, None, "it was killed, perhaps because memory ran out", retry=True)
    try:
        yield
    except AssayError as error:
        _write(path, error.exit_code, str(error), retry=isinstance(error, Unavailable))
        raise
    except SystemExit as end:  # how Typer ends, well or not
        if end.code:
            code = end.code if isinstance(end.code, int) else 1
            _write(path, code, "a signal stopped it" if code == INTERRUPTED else f"exit code {code}", retry=False)
        else:
            path.unlink()
        raise
    except BaseException as error:
        _write(path, 1, f"{type(error).__name__}: {error} (its traceback is in the log)", retry=False)
        raise
    path.unlink()


def _write(path: Path, code: int | None, message: str, retry: bool) -> None:
    if code is not None:
        from assay.redaction import redact

        message = redact(message)
    write_atomic(path, json.dumps({"code": code, "message": message, "retry": retry}).encode())
