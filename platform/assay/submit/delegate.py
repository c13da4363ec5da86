"""`assay train` and `assay tune` with ASSAY_CLUSTER set: it runs there, and its outputs are written here.

The command stands for the job: stopped by a signal, it stops the job, which saves; given again, it continues. If the
command is killed, the job continues, and the same command follows it again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from assay.errors import InputError, Interrupted, Unavailable
from assay.http import is_loopback
from assay.log import Log
from assay.services.stores import sqlite_file
from assay.settings import Settings
from assay.signals import Signalled, handled_by
from assay.submit.follow import Follower, Halted, JobFailed, result_of, stop
from assay.submit.package import pack
from assay.submit.ray_jobs import Cluster
from assay.submit.submit import CheckedCommand, Command, check_command, command_of, key_of, start
from assay.tracking.remote import open_tracker
from assay.tracking.tracker import Tracker
from assay.usecases.helpers.results import SearchResults, write_search
from assay.usecases.train import TrainRequest, found_record, write_results
from assay.usecases.tune import TuneRequest


def train_there(request: TrainRequest, settings: Settings, log: Log) -> dict[str, Any]:
    """Train, continue or find the run of an experiment on the cluster; its record, and its outputs here."""
    assert settings.cluster
    cluster, tracker, command = Cluster(settings.cluster), open_tracker(settings), command_of(request)
    _require_shared_tracking(settings, cluster)
    checked = check_command(command, settings)
    found = tracker.find(request.experiment, checked.fingerprint) if checked.fingerprint and not request.new else None
    if found is not None and found.info.status == "FINISHED":
        log(f"nothing to train: run {found.info.run_id} has exactly these inputs")
        record = found_record(found.info.run_id, tracker)
    else:
        record = _run_there(command, checked, cluster, settings, log)
        _require_run(record["run_id"], tracker)
    write_results(request, record, settings, tracker)
    return record


def tune_there(request: TuneRequest, settings: Settings, log: Log) -> dict[str, Any]:
    """Run, continue or find a search on the cluster; its record, and its outputs here."""
    words = ["tune", request.search]
    for name in ("resume", "minutes", "parallel"):
        value = getattr(request, name)
        words += [f"--{name}", str(value)] if value is not None else []
    words += ["--new"] if request.new else []
    command = Command("tune", {"search": request.search, "new": request.new}, tuple(words))
    assert settings.cluster
    cluster, tracker = Cluster(settings.cluster), open_tracker(settings)
    _require_shared_tracking(settings, cluster)
    record = _run_there(command, check_command(command, settings), cluster, settings, log)
    _require_run(record["search_id"], tracker)
    write_search(SearchResults.of(settings.root, request.search), record, tracker)
    return record


def _run_there(
    command: Command, checked: CheckedCommand, cluster: Cluster, settings: Settings, log: Log
) -> dict[str, Any]:
    """The result of a command on the cluster: of the job that runs it already, else of a new one.

    A signal stops the job first. Raises `Interrupted` if it was stopped, here or by somebody else.
    """
    with _halting() as halt:
        job_id = _job(command, checked, cluster, settings, log, halt)
        follower = Follower(cluster, job_id, log, log, halt)
        try:
            ended = follower.to_the_end()
        except Halted:
            _stop(cluster, job_id, log)
            ended = follower.to_the_end()
    try:
        return result_of(ended)
    except JobFailed as error:
        if error.exit_code == 130:
            raise Interrupted(str(error)) from None
        raise


def _job(
    command: Command, checked: CheckedCommand, cluster: Cluster, settings: Settings, log: Log, halt: threading.Event
) -> str:
    """The job that runs a command: one that is open, else a new one."""
    cluster.check()
    package = pack(settings.root, checked.config.task.files if checked.config else ())
    key = key_of(command, checked, package)
    job_id = next((job.job_id for job in cluster.list() if job.open and job.key == key), None)
    if job_id is not None:
        log(f"job {job_id} is doing this already; following it")
        return job_id
    if halt.is_set():
        raise Interrupted("stopped before a job was submitted")
    for name in package.keys:
        log(f"left out of the package because it looks like a key: {name}")
    return start(command, checked, package, cluster, log, wait=False)


def _stop(cluster: Cluster, job_id: str, log: Log) -> None:
    try:
        stop(cluster, job_id, log)
    except Unavailable as error:
        raise Unavailable(f"{error} Job {job_id} may still run: `assay jobs stop {job_id}`") from None


@contextmanager
def _halting() -> Iterator[threading.Event]:
    """An event that the first of `STOPPING` sets, at any moment; the second leaves at once."""
    halt = threading.Event()

    def handle(_number: int, _frame: object) -> None:
        if halt.is_set():
            raise Signalled
        halt.set()

    with handled_by(handle):
        yield halt


def _require_shared_tracking(settings: Settings, cluster: Cluster) -> None:
    """Refuse a tracking store that the cluster cannot write to, before hours of training end up in another one."""
    if sqlite_file(settings.tracking) is not None and not is_loopback(cluster.address):
        raise InputError(
            "ASSAY_TRACKING_URI: not set, or a file on this machine, which a cluster cannot use: set it to the "
            "address of the tracking store that the cluster's nodes use"
        )


def _require_run(run_id: str, tracker: Tracker) -> None:
    try:
        tracker.get(run_id)
    except InputError as error:
        raise InputError(f"ASSAY_TRACKING_URI: {error}: set it to the tracking store of the cluster's nodes") from None
