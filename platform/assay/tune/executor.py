"""Runs the trials of a search on Ray Tune, in actors that are reused, as many at a time as there are slots.

Tune places and watches the trials. What to try, which trials continue and what happened is up to `Search` alone, so
Tune's own state is never read back.
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
from assay.tune.live import TUNE, LiveSearch
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


END_SECONDS = 30.0  # in which Tune has to notice that Ray is gone
RAYS = 3  # started in all, if they die, before we give up


def execute(live: LiveSearch, settings: Settings, tick: Callable[[], None], log: Log) -> None:
    """Run trials until the search has no more, or a stop is requested; running ones are then saved and wait.

    If our own Ray dies, it is started again, and the trials that ran continue from their checkpoints.

    Raises:
        WorkError: Ray died too often.
    """
    (live.folder / STOP).unlink(missing_ok=True)
    for name, value in TUNE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(live.plan.parallel)  # with fewer, slots stay empty
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    for _ in range(RAYS):
        try:
            return _execute(live, settings, tick, log)
        except RayDied:
            log("Ray died; starting it again and continuing")
    raise WorkError(f"Ray died {RAYS} times; the search is saved, and the same command resumes it")


class RayDied(Exception):
    """The servers of our own Ray are gone; what ran on them has to run again."""


def _execute(live: LiveSearch, settings: Settings, tick: Callable[[], None], log: Log) -> None:
    over, ended = threading.Event(), threading.Event()
    shutil.rmtree(live.folder / TUNE, ignore_errors=True)  # files of a killed session, which nobody reads

    def watch() -> None:
        if not ray_alive():
            over.set()
            raise RayDied
        if live.stop_requested():
            for trial in live.search.running:
                (live.trial_folder(trial) / STOP).touch()
        tick()

    def run() -> None:
        from assay.tune.ray_tune import run_trials  # Ray reads the settings of `ray_running` when it is imported

        try:
            run_trials(live, over)
        finally:
            ended.set()

    try:
        with ray_running(settings, log):
            log(
                f"running {live.plan.parallel} trials at a time on {live.plan.device}, {live.plan.threads} threads each"
            )
            run_watched(run, live.folder, watch, log)
    except RayDied:
        ended.wait(END_SECONDS)  # its next call of Ray fails
        raise
    finally:
        over.set()
        for trial in live.search.running:
            live.search.release(trial.number)
        shutil.rmtree(live.folder / TUNE, ignore_errors=True)
