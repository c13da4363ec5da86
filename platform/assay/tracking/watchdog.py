"""`python -m assay.tracking.watchdog PROJECT RUN`: waits for its parent to end, and reaps the run if it was killed.

It reads its standard input, a pipe whose other end the parent holds. "done" means a clean end; the end of the pipe
without it means that the parent died. Until then it is a bare interpreter of a few megabytes.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from assay.signals import STOPPING


def main() -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)  # meant for the parent, when a job and all that it started is stopped
    if sys.stdin.buffer.read():
        return
    from assay.program import start_program
    from assay.settings import Settings
    from assay.tracking.runs import reap
    from assay.tracking.tracker import Tracker

    start_program()
    settings = Settings(project=Path(sys.argv[1]))
    reap(settings, Tracker(settings))


if __name__ == "__main__":
    main()
