"""The `assay` program within this process: Python, torch and MLflow are imported once for all tests, not once a call.

What only a process of its own has (its start, signals, a kill, its exit) is tested on the real program.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess


def call(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> CompletedProcess[str]:
    """What the program prints and its exit code. An exception that would end it with a traceback is raised."""
    from assay.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with _as_a_program(["assay", *words], folder, environment), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return CompletedProcess(list(words), code, out.getvalue(), err.getvalue())


@contextmanager
def _as_a_program(command: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Arguments, environment and working directory of a program; afterwards those of before."""
    arguments, before = sys.argv, dict(os.environ)
    sys.argv = command
    _become(environment)
    try:
        with chdir(folder):
            yield
    finally:
        sys.argv = arguments
        _become(before)


def _become(environment: Mapping[str, str]) -> None:
    """Change what differs, and nothing for a moment: other threads (Ray's) read the environment meanwhile."""
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
