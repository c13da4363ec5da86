"""A tracker in a process of its own, next to the one that trains.

Importing MLflow takes as long as importing torch. With two processes both happen at once, and what is written while
a training runs takes no time from it. `process.py` is the other process. A call is a line of JSON, and so is its
answer.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from assay import errors
from assay.errors import AssayError, Unavailable

if TYPE_CHECKING:
    from assay.settings import Settings
    from assay.tracking.tracker import Tracker

CALLS = (
    "begin", "children", "complete", "create", "drop_ticket", "end", "fetch", "find_all", "find_inputs", "get",
    "has_runs", "history", "log_curves", "log_file", "log_points", "names", "newest", "renew_ticket", "series",
    "set_status", "set_tags", "take_ticket", "tickets", "unfinished",
)  # fmt: skip
"""The methods of `Tracker` that talk to MLflow; all others are made of these."""

_other: OtherProcess | None = None
"""The other process, if this one has started it."""


class TrackingError(Exception):
    """What went wrong in the other process without being meant for the user, with its traceback."""


def start(root: Path, draws: bool = False) -> None:
    """Start the other process for a project, in place of one before. It is ready once torch is imported here.

    Args:
        draws: whether it will draw curves, which it then gets ready for.
    """
    global _other
    if _other is not None:
        _other.end()
    _other = OtherProcess(root, draws)


def open_tracker(settings: Settings) -> Tracker:
    """The runs of a project: by the other process if there is one for it, else by this one."""
    from assay.tracking.tracker import Tracker

    if _other is not None and _other.root == settings.root:
        remote: Tracker = _remote_class()(settings, _other)
        return remote
    return Tracker(settings)


class OtherProcess:
    """This end of the other process. One call at a time, by any thread."""

    def __init__(self, root: Path, draws: bool) -> None:
        self.root = root
        self._turn = threading.Lock()
        self._owed = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "assay.tracking.process", str(root), *(["draws"] if draws else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a signal is meant for this process, which needs the other one to end well
        )

    def end(self) -> None:
        """Let it finish what it is at, and wait for its end."""
        assert self._process.stdin is not None
        with self._turn, suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the method of `Tracker` returned there. Raises what it raised there."""
        from pydantic_core import to_json

        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            try:
                self._process.stdin.write(to_json([name, arguments], inf_nan_mode="constants") + b"\n")
                self._process.stdin.flush()
                self._owed += 1
                line = b""
                while self._owed:  # the answers to calls that Ctrl-C interrupted come first
                    line = self._process.stdout.readline()
                    self._owed -= 1
            except BrokenPipeError:
                line = b""
        if not line:
            raise Unavailable("the process that writes to the tracking store has ended; the same command continues")
        answer = json.loads(line)
        if "error" in answer:
            _raise(answer)
        return _adapter(name).validate_python(answer["result"])


@cache
def _remote_class() -> Any:
    """A `Tracker` whose calls of MLflow are made by the other process."""
    from assay.tracking.tracker import Tracker

    def forwarded(name: str) -> Any:
        signature = inspect.signature(getattr(Tracker, name))

        def call(self: Any, *values: Any, **named: Any) -> Any:
            arguments = dict(signature.bind(self, *values, **named).arguments)
            del arguments["self"]
            return self.other.call(name, arguments)

        return call

    def initialize(self: Any, settings: Settings, other: OtherProcess) -> None:
        Tracker.__init__(self, settings)
        self.other = other

    return type("RemoteTracker", (Tracker,), {"__init__": initialize, **{name: forwarded(name) for name in CALLS}})


@cache
def _adapter(name: str) -> Any:
    """Turns plain data into what a method of `Tracker` returns."""
    from pydantic import TypeAdapter

    from assay.tracking.tracker import Tracker

    return TypeAdapter(get_type_hints(getattr(Tracker, name))["return"])


def _raise(answer: Mapping[str, Any]) -> None:
    kind = getattr(errors, answer["error"], None)
    if isinstance(kind, type) and issubclass(kind, AssayError):
        raise kind(answer["message"]) from (TrackingError(answer["cause"]) if answer["cause"] else None)
    raise TrackingError(f"{answer['message']}\n{answer['traceback']}")
