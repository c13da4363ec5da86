"""A tracker in a process of its own, next to the one that trains.

Importing MLflow takes as long as importing torch. With two processes both happen at once, and what is written while
a training runs takes no time from it. `process.py` is the other process. A call is a line of JSON, and so is its
answer.

The other process shows all the time that it lives, so one that waits for a slow store is left alone, and one that was
killed or stands still is replaced.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, get_type_hints

from assay import errors
from assay.errors import AssayError, Unavailable
from assay.signals import asked_to_end, wait_or_kill

if TYPE_CHECKING:
    from assay.settings import Settings
    from assay.tracking.tracker import Tracker

CALLS = (
    "begin", "children", "complete", "create", "drop_ticket", "end", "fetch", "find_all", "find_inputs", "get",
    "has_runs", "history", "log_curves", "log_file", "log_points", "names", "newest", "renew_ticket", "series",
    "set_status", "set_tags", "take_ticket", "tickets", "unfinished",
)  # fmt: skip
"""The methods of `Tracker` that talk to MLflow; all others are made of these."""

ONCE = {"begin", "create", "take_ticket"}
"""Those that would make something twice if they were made again after a death in the middle."""

BEAT = b"\n"
BEAT_SECONDS = 0.5
"""How often the other process shows that it lives."""
SILENT_SECONDS = 30.0
"""For this long it may show no life, as on a machine that is very busy, before it counts as dead."""
HASTY_SECONDS = 3.0
"""The same once a signal has asked to end."""
PATIENCE_SECONDS = 10.0
"""For this long, all calls together, it is waited for once a signal has asked to end, whatever it does."""
LIVES = 3
"""How often it may die in one call."""

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
    """This end of the other process, which is started again if it dies. One call at a time, by any thread."""

    def __init__(self, root: Path, draws: bool) -> None:
        self.root = root
        self._turn = threading.Lock()
        self._command = [sys.executable, "-m", "assay.tracking.process", str(root), *(["draws"] if draws else [])]
        self._calls = 0
        self._waited = 0.0
        self._life = _Life(self._command)

    def end(self) -> None:
        """Let it finish what it is at, and wait for its end."""
        with self._turn:
            self._life.end()

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the method of `Tracker` returned there.

        Raises what it raised there, and `Unavailable` if it died too often, or in a call that is not to be made twice.
        """
        from pydantic_core import to_json

        line = to_json([name, arguments], inf_nan_mode="constants") + b"\n"
        with self._turn:
            answer = self._answer(line, 1 if name in ONCE else LIVES)
        if "error" in answer:
            _raise(answer)
        return _adapter(name).validate_python(answer["result"])

    def _answer(self, line: bytes, lives: int) -> Mapping[str, Any]:
        for _ in range(lives):
            if self._life.is_over:
                self._life.kill()  # in case it died by itself, between two calls
                self._life = _Life(self._command)
            self._calls += 1  # the answers to calls that Ctrl-C interrupted come first
            self._life.calls.put((self._calls, line))
            found = self._wait()
            if found is not None:
                return found
            self._life.kill()
        raise Unavailable("the process that writes to the tracking store has ended; the same command continues")

    def _wait(self) -> Mapping[str, Any] | None:
        """The answer to the last call; None if the other process has died, or counts as dead.

        Beats are counted, not seconds: this process may itself have been stopped for long.
        """
        silent = 0.0
        while True:
            try:
                number, answer = self._life.answers.get(timeout=BEAT_SECONDS)
            except Empty:
                silent = 0.0 if self._life.has_beaten() else silent + BEAT_SECONDS
                if asked_to_end():
                    self._waited += BEAT_SECONDS
                if self._waited > PATIENCE_SECONDS:
                    raise Unavailable("the tracking store takes too long; the same command continues") from None
                if silent >= (HASTY_SECONDS if asked_to_end() else SILENT_SECONDS):
                    return None
                continue
            if not answer.endswith(b"\n"):
                return None
            if number == self._calls:
                found: Mapping[str, Any] = json.loads(answer)
                return found


class _Life:
    """The other process from one start to its death. A thread writes and reads, so that no caller waits for a pipe."""

    def __init__(self, command: Sequence[str]) -> None:
        self.calls: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
        self.answers: SimpleQueue[tuple[int, bytes]] = SimpleQueue()  # one for each call; torn if it died
        self._beaten = threading.Event()
        self._killed = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a signal is meant for this process, which needs the other one to end well
        )
        threading.Thread(target=self._talk, name="tracking", daemon=True).start()

    def _talk(self) -> None:
        calls, answers = self._process.stdin, self._process.stdout
        assert calls is not None
        assert answers is not None
        for number, line in iter(self.calls.get, None):
            answer = b""
            with suppress(BrokenPipeError):
                calls.write(line)
                calls.flush()
                while (answer := answers.readline()) == BEAT:
                    self._beaten.set()
            self.answers.put((number, answer))
        with suppress(BrokenPipeError):
            calls.close()

    @property
    def is_over(self) -> bool:
        return self._killed or self._process.poll() is not None

    def has_beaten(self) -> bool:
        """Whether it has shown since the last time that it lives."""
        beaten = self._beaten.is_set()
        self._beaten.clear()
        return beaten

    def end(self) -> None:
        """Let it finish what it is at, for a while."""
        self.calls.put(None)
        wait_or_kill(self._process)

    def kill(self) -> None:
        self._killed = True
        self._process.kill()
        wait_or_kill(self._process, BEAT_SECONDS)
        self.calls.put(None)


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
