"""Following a job to its end: its log line by line, its result and its exit code, through lost connections."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from assay.errors import AssayError, InputError, Unavailable, WorkError
from assay.log import Log
from assay.submit.log_stream import LogStream
from assay.submit.ray_jobs import STOP_SECONDS, Cluster, JobInfo, UnknownJob

END = "::assay-job-ended:: "
"""Begins the last line that a job writes; JSON follows: what the verb printed, its exit code, and why it failed."""

ERROR = "error: "
"""Begins the line with the reason why `assay` ends."""

POLL_SECONDS = 1.0
BYTES_PER_SECOND = 200_000
"""Where the log cannot be followed it is read whole each time, a long one less often."""

LONGEST_PAUSE = 30.0
UNREADABLE = 5
"""After so many failures to read the log of an ended job, it ends without it."""


@dataclass(frozen=True)
class JobEnd:
    """How a job ended. `result` is the JSON object that its verb printed."""

    info: JobInfo
    exit_code: int
    result: dict[str, Any] | None
    error: dict[str, Any] = field(default_factory=dict)


class JobFailed(WorkError):
    """The job ended without doing its work; this command ends with the same exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Halted(Exception):
    """The follower was asked to stop following."""


class JobLog:
    """The lines of a job's log, each returned once, however often the log is read."""

    def __init__(self) -> None:
        self._given = 0  # characters
        self._end: str | None = None
        self._error = ""

    def new(self, text: str, last: bool = False) -> Iterator[str]:
        """The whole lines of `text`, the log so far, that are new; what follows them too, if it is the `last` text."""
        upto = len(text) if last else text.rfind("\n") + 1
        lines, self._given = text[self._given : upto].splitlines(), max(self._given, upto)
        for line in lines:
            if line.startswith(END):
                self._end = line.removeprefix(END)
            else:
                self._error = line.removeprefix(ERROR) if line.startswith(ERROR) else ""
                yield line

    def final_report(self) -> dict[str, Any]:
        """What the job wrote in its last line; empty if it ended before that."""
        try:
            report = json.loads(self._end or "{}")
        except ValueError:
            return {}
        if not isinstance(report, dict):
            return {}
        return {**report, "error": report.get("error") or ({"message": self._error} if self._error else {})}


class Follower:
    """Shows a job's log from its beginning, and waits for its end. Called again, it continues where it was."""

    def __init__(self, cluster: Cluster, job_id: str, show: Log, log: Log, halt: threading.Event | None = None) -> None:
        self.cluster, self.job_id, self.show, self.log = cluster, job_id, show, log
        self._halt = halt or threading.Event()
        self._halted = False
        self._job_log = JobLog()
        self._stream: LogStream | None = None
        self._failures = self._unreadable = 0

    def to_the_end(self) -> JobEnd:
        """Follow the job until it has ended. Raises `Halted`, once, if `halt` is set before that.

        A lost connection is reported once and tried again for as long as it takes; no line is lost or shown twice.
        """
        while True:
            try:
                info = self.cluster.info(self.job_id)
                text, seconds = self._text(info)
            except Unavailable as error:
                self._stream = None  # it may hang
                self._wait(error)
                continue
            except UnknownJob:
                raise Unavailable(
                    f"{self.cluster.address} has forgotten job {self.job_id}: its head was restarted: "
                    "the same command continues from the last checkpoint"
                ) from None
            if self._failures >= 2:
                self.log("connected again")
            self._failures = 0
            for line in self._job_log.new(text, last=not info.open):
                self.show(line)
            if not info.open:
                return _job_end(info, self._job_log.final_report())
            self._pause(seconds)

    def _text(self, info: JobInfo) -> tuple[str, float]:
        """The log so far, and after how many seconds to look again.

        It is empty if the job has ended and the cluster cannot read its log.
        """
        if info.open and self._stream is not None and self._stream.open:
            return self._stream.text, POLL_SECONDS
        try:
            text = self.cluster.log(self.job_id)
        except Unavailable as error:
            self._unreadable += not info.open
            if self._unreadable < UNREADABLE:
                raise
            self.log(f"the rest of the log is lost: {error}")
            return "", POLL_SECONDS
        if info.open and text:
            self._stream = LogStream(lambda: self.cluster.follow_log(self.job_id))
        return text, max(POLL_SECONDS, len(text) / BYTES_PER_SECOND)

    def _wait(self, error: Unavailable) -> None:
        """Pause before the next try; two failures in a row are a lost connection."""
        self._failures += 1
        if self._failures == 2:
            self.log(f"{error}")
            self.log(f"the job continues; trying again. `assay jobs attach {self.job_id}` shows its whole log later")
        self._pause(min(2.0 ** (self._failures - 1), LONGEST_PAUSE))

    def _pause(self, seconds: float) -> None:
        if self._halted:
            time.sleep(seconds)
        elif self._halt.wait(seconds):
            self._halted = True
            raise Halted


def _job_end(info: JobInfo, report: dict[str, Any]) -> JobEnd:
    code = report.get("exit_code", info.exit_code)
    if code is None:
        code = {"SUCCEEDED": 0, "STOPPED": 130}.get(info.status, 1)
    return JobEnd(info, code, report.get("result"), report.get("error") or {})


def result_of(ended: JobEnd) -> dict[str, Any]:
    """What the verb of a job printed. Raises the error that it would have ended with here."""
    job_id = ended.info.job_id
    if ended.exit_code == 0 and ended.result is not None:
        return ended.result
    if ended.info.status == "STOPPED" or ended.exit_code == 130:
        raise JobFailed(f"job {job_id} was stopped; the same command continues from what it saved", 130)
    if ended.error:
        kinds: dict[int, type[AssayError]] = {2: InputError, 1: Unavailable if ended.error.get("retry") else WorkError}
        raise kinds.get(ended.exit_code, WorkError)(f"job {job_id}: {ended.error['message']}")
    if ended.exit_code == 0:
        raise WorkError(f"job {job_id} did its work, but its result is not in its log: `assay runs` has the run")
    raise JobFailed(f"job {job_id} failed: {_why(ended)}; its log: `assay jobs logs {job_id}`", ended.exit_code)


def _why(ended: JobEnd) -> str:
    """One line for a job that did not report why it ended."""
    if ended.info.exit_code is not None:
        code = ended.info.exit_code
        return f"its process was killed by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
    lines = [line.strip() for line in ended.info.message.splitlines() if line.strip()]
    return " ".join(lines[:1] + lines[-1:] if len(lines) > 1 else lines)[:300] or "the cluster gives no reason"


def stop(cluster: Cluster, job_id: str, log: Log) -> JobInfo:
    """Ask a job to save and end, and wait until it has."""
    info = cluster.info(job_id)
    if not info.open:
        return info
    cluster.ask_to_stop(job_id)
    log(f"asked job {job_id} to save and end; it is killed if that takes longer than {STOP_SECONDS} s")
    deadline = time.monotonic() + STOP_SECONDS + 30
    while time.monotonic() < deadline:
        try:
            info = cluster.info(job_id)
        except Unavailable:
            pass
        else:
            if not info.open:
                return info
        time.sleep(0.5)
    raise Unavailable(f"job {job_id} was asked to stop and is still {info.status}: `assay jobs list` shows its end")


@contextmanager
def detaching(cluster: Cluster, job_id: str, log: Log) -> Iterator[None]:
    """Ctrl-C leaves the job running, and shows how to come back to it."""
    try:
        yield
    except KeyboardInterrupt:
        log(f"job {job_id} continues on {cluster.address}")
        log(f"see it:  assay jobs attach {job_id}")
        log(f"stop it: assay jobs stop {job_id}")
        raise JobFailed("detached", 130) from None
