"""Runs the trials of a search on Ray Tune: actors that are used again, as many at a time as there are slots.

Tune places and watches the trials. What to try, who goes on and what happened is `Search`'s alone, so nothing of
Tune's own state is ever read back.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable

from assay.errors import WorkError
from assay.log import Log
from assay.settings import Settings
from assay.train.folder import STOP
from assay.tune.work import TUNE, Work
from assay.workers.launch import run_watched
from assay.workers.ray_private import ray_alive
from assay.workers.ray_session import ray_running

TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # the search has a journal of its own
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


END_SECONDS = 30.0  # that a Tune without Ray has to notice
RAYS = 3  # of our own that may die before we give up


def execute(work: Work, settings: Settings, tick: Callable[[], None], log: Log) -> None:
    """Run trials until the search has no more, or a stop is asked for; running ones are then saved and wait.

    A Ray of our own that dies is started again, and the trials that ran go on from their checkpoints.

    Raises:
        WorkError: Ray died too often.
    """
    (work.folder / STOP).unlink(missing_ok=True)
    for name, value in TUNE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(work.plan.parallel)  # with fewer, slots stay empty
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    for _ in range(RAYS):
        try:
            return _execute(work, settings, tick, log)
        except RayDied:
            log("Ray died; starting it again, and going on")
    raise WorkError(f"Ray died {RAYS} times; the search is saved, and the same command goes on")


class RayDied(Exception):
    """The servers of our own Ray are gone; whatever ran on them has to be run again."""


def _execute(work: Work, settings: Settings, tick: Callable[[], None], log: Log) -> None:
    over, ended = threading.Event(), threading.Event()
    shutil.rmtree(work.folder / TUNE, ignore_errors=True)  # what a killed session left is never read

    def watch() -> None:
        if not ray_alive():
            over.set()
            raise RayDied
        if work.stopping:
            for trial in work.search.running:
                (work.trial_folder(trial) / STOP).touch()
        tick()

    def run() -> None:
        from assay.tune.ray_tune import run_trials  # Ray reads the settings of `ray_running` when it is imported

        try:
            run_trials(work, over)
        finally:
            ended.set()

    try:
        with ray_running(settings, log):
            log(
                f"running {work.plan.parallel} trials at a time on {work.plan.device}, {work.plan.threads} threads each"
            )
            run_watched(run, work.folder, watch, log)
    except RayDied:
        ended.wait(END_SECONDS)  # its next call of Ray fails, now that there is none
        raise
    finally:
        over.set()
        for trial in work.search.running:
            work.search.release(trial.number)
        shutil.rmtree(work.folder / TUNE, ignore_errors=True)
