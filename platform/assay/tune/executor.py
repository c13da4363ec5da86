"""Runs the trials of a search on Ray Tune, in actors that are reused, as many at a time as there are slots.

Tune places and watches the trials. What to try, which trials continue and what happened is up to `Search` alone, so
Tune's own state is never read back.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from assay.log import Log, counted
from assay.settings import Settings
from assay.train.folder import STOP
from assay.tune.live import TUNE, LiveSearch
from assay.workers.deaths import Deaths
from assay.workers.launch import stopping_on_signals
from assay.workers.on_ray import on_ray

TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # the search has a journal of its own
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def execute(live: LiveSearch, settings: Settings, tick: Callable[[], None], log: Log) -> None:
    """Run trials until the search has no more, or a stop is requested; running ones are then saved and wait.

    If our own Ray dies, it is started again, and the trials that ran continue from their checkpoints.

    Raises:
        WorkError: Ray died too often.
        Interrupted: a stop was requested while no trial ran.
    """
    (live.folder / STOP).unlink(missing_ok=True)
    for name, value in TUNE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(live.plan.parallel)  # with fewer, slots stay empty
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    search = live.search
    deaths = Deaths(lambda: (len(search.ended), search.epochs_trained), (live.folder / STOP).exists)

    def watch() -> None:
        if live.stop_requested():
            for trial in live.search.running:
                (live.trial_folder(trial) / STOP).touch()
        tick()

    with stopping_on_signals(live.folder, log):
        on_ray(partial(_attempt, live, log), settings, live.folder, watch, deaths, log)


@contextmanager
def _attempt(live: LiveSearch, log: Log, over: threading.Event) -> Iterator[Callable[[], None]]:
    shutil.rmtree(live.folder / TUNE, ignore_errors=True)  # files of a killed session, which nobody reads

    def run() -> None:
        from assay.tune.ray_tune import run_trials  # Ray reads the settings of `ray_running` when it is imported

        plan = live.plan
        log(f"running {plan.parallel} trials at a time on {plan.device}, {counted(plan.threads, 'thread')} each")
        run_trials(live, over)

    try:
        yield run
    finally:
        over.set()
        for trial in live.search.running:
            live.search.release(trial.number)
        shutil.rmtree(live.folder / TUNE, ignore_errors=True)
