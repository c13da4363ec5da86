"""A tracker in a process of its own, next to the one that trains.

Importing MLflow takes as long as importing torch. With two processes both happen at once, and what is written while
a training runs takes no time from it. `python -m assay.tracking.process PROJECT` is the other process: it reads one
call a line from its standard input, JSON in and JSON out, and ends with the pipe.
"""

from __future__ import annotations

import inspect
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, get_type_hints

from assay import errors
from assay.errors import AssayError, Unavailable
from assay.settings import Settings
from assay.tracking.tracker import Tracker

CALLS = (
    "begin", "children", "complete", "create", "end", "fetch", "find", "find_inputs", "get", "log_curves", "log_file",
    "log_points", "names", "newest", "set_status", "set_tags", "unfinished",
)  # fmt: skip
"""The methods of `Tracker` that talk to MLflow; all others are made of these."""

_other: _Other | None = None
"""The other process, if this one has started it."""


class TrackingError(Exception):
    """What went wrong in the other process without being meant for the user, with its traceback."""


def start(settings: Settings) -> None:
    """Start the other process, for `open_tracker` to use. It is ready by the time that torch is imported."""
    global _other
    _other = _Other(settings.root)


def open_tracker(settings: Settings) -> Tracker:
    """The runs of a project: from the other process if there is one for it, else from this one."""
    if _other is not None and _other.root == settings.root:
        return _RemoteTracker(settings, _other)
    return Tracker(settings)


class _Other:
    """This end of the other process. One call at a time, by any thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "assay.tracking.process", str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # signals are meant for this process, which still needs the other one then
        )

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the method returned there. Raises what it raised there."""
        from pydantic_core import to_json

        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            try:
                self._process.stdin.write(to_json([name, arguments], inf_nan_mode="constants") + b"\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except BrokenPipeError:
                line = b""
        if not line:
            raise Unavailable("the tracking process has ended; the same command continues")
        answer = json.loads(line)
        if "error" in answer:
            _raise(answer)
        return _adapter(name).validate_python(answer["result"])


class _RemoteTracker(Tracker):
    """A tracker whose calls of MLflow are made by the other process."""

    def __init__(self, settings: Settings, other: _Other) -> None:
        super().__init__(settings)
        self.other = other


def _forwarded(name: str) -> Callable[..., Any]:
    signature = inspect.signature(getattr(Tracker, name))

    def call(self: _RemoteTracker, *values: Any, **named: Any) -> Any:
        arguments = dict(signature.bind(self, *values, **named).arguments)
        del arguments["self"]
        return self.other.call(name, arguments)

    return call


for _name in CALLS:
    setattr(_RemoteTracker, _name, _forwarded(_name))


@cache
def _adapter(name: str) -> Any:
    """Turns plain data into what a method of `Tracker` returns."""
    from pydantic import TypeAdapter

    return TypeAdapter(get_type_hints(getattr(Tracker, name))["return"])


def _raise(answer: Mapping[str, Any]) -> None:
    kind = getattr(errors, answer["error"], None)
    if isinstance(kind, type) and issubclass(kind, AssayError):
        raise kind(answer["message"]) from (TrackingError(answer["cause"]) if answer["cause"] else None)
    raise TrackingError(f"{answer['message']}\n{answer['traceback']}")


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends when the other process does
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    from assay.silence import quiet

    quiet()
    tracker = Tracker(Settings(project=Path(sys.argv[1])))
    _import_what_is_needed(tracker.settings)
    serve(tracker, sys.stdin.buffer, answers)


def serve(tracker: Tracker, calls: IO[bytes], answers: IO[bytes]) -> None:
    """Answer calls, a line each, until the pipe ends."""
    from pydantic_core import to_json

    idle = _import_what_draws
    while line := calls.readline():
        answers.write(to_json(_answer(tracker, line), inf_nan_mode="constants") + b"\n")
        with suppress(BrokenPipeError):
            answers.flush()
        if not select.select([calls], [], [], 0.05)[0]:
            idle()
            idle = _nothing


def _answer(tracker: Tracker, line: bytes) -> dict[str, Any]:
    from pydantic import validate_call

    name, arguments = json.loads(line)
    try:
        assert name in CALLS
        return {"result": validate_call(getattr(tracker, name))(**arguments)}
    except Exception as error:
        cause = error.__cause__
        return {
            "error": type(error).__name__,
            "message": str(error),
            "cause": str(cause) if cause is not None else None,
            "traceback": traceback.format_exc(),
        }


def _import_what_is_needed(settings: Settings) -> None:
    import mlflow

    mlflow.MlflowClient  # noqa: B018 - loads it
    if not settings.tracking.startswith(("http://", "https://")):
        import mlflow.store.tracking.sqlalchemy_store


def _import_what_draws() -> None:
    pass


def _nothing() -> None: ...


if __name__ == "__main__":
    main()
