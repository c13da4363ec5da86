"""`python -m assay.tracking.process PROJECT [draws]`: makes the calls of MLflow for the process that started it.

With `draws`, it gets ready to draw curves.

It reads one call a line from its standard input, writes one answer a line to its standard output, and ends with the
pipe, so also when the other process is killed. Empty lines between the answers show that it lives.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from assay.program import outlive_output, start_program
from assay.signals import STOPPING, when_parent_dies
from assay.tracking.remote import BEAT, BEAT_SECONDS, CALLS

if TYPE_CHECKING:
    from assay.settings import Settings
    from assay.tracking.tracker import Tracker


def main() -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    if (go_on := when_parent_dies(signal.SIGCONT)) is not None:
        go_on()  # in case it is stopped then, and could not see the end of the pipe
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    threading.Thread(target=_beat, args=[answers], name="beat", daemon=True).start()
    start_program()
    outlive_output()
    from assay.errors import AssayError
    from assay.services.running import enter
    from assay.settings import Settings
    from assay.tracking.tracker import Tracker

    try:
        settings = Settings(project=Path(sys.argv[1]))
        enter(settings)
        settings = Settings(project=settings.root)  # of the services that are up
    except (AssayError, OSError):
        sys.exit(1)  # the other process, which does the same, says so
    _import_mlflow(settings)
    with suppress(BrokenPipeError):
        serve(Tracker(settings), sys.stdin.buffer, answers, [_draw_once] if "draws" in sys.argv[2:] else [])


def _beat(answers: IO[bytes]) -> None:
    """Show that this process lives, also while it waits for a store. Whole lines are written at once by any thread."""
    with suppress(BrokenPipeError):
        while True:
            answers.write(BEAT)
            answers.flush()
            time.sleep(BEAT_SECONDS)


def serve(tracker: Tracker, calls: IO[bytes], answers: IO[bytes], meanwhile: Iterable[Callable[[], None]] = ()) -> None:
    """Answer calls, a line each, until the pipe ends.

    Args:
        meanwhile: what may be done before it is needed, in this order, as long as no call waits.
    """
    from pydantic_core import to_json

    waiting = iter(meanwhile)
    while True:
        while not select.select([calls], [], [], 0)[0] and (work := next(waiting, None)) is not None:
            work()
        line = calls.readline()
        if not line:
            return
        answers.write(to_json(_answer(tracker, line), inf_nan_mode="constants") + b"\n")
        answers.flush()


def _answer(tracker: Tracker, line: bytes) -> dict[str, Any]:
    from pydantic import validate_call

    from assay.system_errors import explained

    name, arguments = json.loads(line)
    try:
        assert name in CALLS
        return {"result": validate_call(getattr(tracker, name))(**arguments)}
    except Exception as raised:
        error = explained(raised) or raised
        cause = raised.__cause__
        return {
            "error": type(error).__name__,
            "message": str(error),
            "cause": str(cause) if cause is not None else None,
            "traceback": traceback.format_exc(),
        }


def _import_mlflow(settings: Settings) -> None:
    """What the first call needs, before it comes."""
    import mlflow

    mlflow.MlflowClient  # noqa: B018 - an attribute that is imported when it is asked for
    if not settings.tracking.startswith(("http://", "https://")):
        import mlflow.store.tracking.sqlalchemy_store


def _draw_once() -> None:
    """Import Matplotlib, and let it find its fonts."""
    from assay.report import pictures

    pictures.curves({"train/loss": [(0, 1.0), (1, 0.0)]})


if __name__ == "__main__":
    main()
