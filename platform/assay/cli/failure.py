"""Tells whoever started this program why it failed, in the file that `ASSAY_ERROR_FILE` names; DVC keeps it to itself.

The file says `code`, `message` and `retry` (whether trying again can help). It is there from the start with the word of
a program that was killed, and gone once all went well; so a flow can tell killed, failed and never begun apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.errors import AssayError, Unavailable
from assay.files import write_atomic

FILE = "ASSAY_ERROR_FILE"


@contextmanager
def telling() -> Iterator[None]:
    """Keep the file true while the block runs. The variable is not handed on: what this program starts is its own."""
    named = os.environ.pop(FILE, None)
    if named is None:
        yield
        return
    path = Path(named)
    _tell(path, None, "it was killed without a word (by the system where memory ran out, or by somebody)", retry=True)
    try:
        yield
    except AssayError as error:
        _tell(path, error.exit_code, str(error), retry=isinstance(error, Unavailable))
        raise
    except SystemExit as end:  # how Typer ends, well or not
        if end.code:
            _tell(path, 2, f"exit code {end.code}", retry=False)
        else:
            path.unlink()
        raise
    except BaseException as error:
        _tell(path, 1, f"{type(error).__name__}: {error} (its traceback is in the log)", retry=False)
        raise
    path.unlink()


def _tell(path: Path, code: int | None, message: str, retry: bool) -> None:
    if code is not None:
        from assay.redaction import redact

        message = redact(message)
    write_atomic(path, json.dumps({"code": code, "message": message, "retry": retry}).encode())
