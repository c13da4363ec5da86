"""How a job runs a verb on the cluster: `python -m assay.cli.in_job VERB ...`.

A job returns nothing but its log. The last line is for the program that follows it: the JSON object that the verb
printed, the exit code, and why it failed.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from assay.redaction import secrets_of, without
from assay.scratch import scratch_folder


class RedactedStream(io.TextIOBase):
    """A stream without the secrets of this process: everyone with access to the cluster sees the logs of its jobs."""

    def __init__(self, stream: TextIO, secrets: Mapping[str, str]) -> None:
        self.stream, self.secrets = stream, secrets

    def write(self, text: str) -> int:
        return self.stream.write(without(text, self.secrets))

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding


def main() -> None:
    from assay.submit.follow import END

    for stream in (sys.stdout, sys.stderr):  # the cluster serves only logs that are UTF-8
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    out = sys.stdout
    os.environ.pop("ASSAY_CLUSTER", None)  # this is the cluster
    os.environ["ASSAY_PROJECT"] = str(Path.cwd())
    with scratch_folder(Path.cwd()) as folder:
        why = folder / "error.json"
        os.environ["ASSAY_ERROR_FILE"] = str(why)
        redacted = RedactedStream(sys.stderr, secrets_of(os.environ))
        with redirect_stderr(redacted):
            code, printed = _run(sys.argv[1:])
        error = json.loads(why.read_text()) if why.is_file() else None
    end = json.dumps({"exit_code": code, "result": _parsed(printed), "error": error})
    RedactedStream(out, redacted.secrets).write(f"{END}{end}\n")
    out.flush()
    sys.exit(code)


def _run(words: list[str]) -> tuple[int, str]:
    """Run a verb with --json; returns its exit code and what it printed."""
    from assay.cli.main import main as assay

    sys.argv = ["assay", *words, "--json"]
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            assay()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    return code, printed.getvalue()


def _parsed(printed: str) -> Any:
    return json.loads(printed) if printed.strip() else None


if __name__ == "__main__":
    main()
