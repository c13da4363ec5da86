"""Ray's job API over HTTP: only the dashboard of the head must be reachable.

Ray's own client waits without limit on a connection that was cut, and takes the address of another cluster from the
environment. Only a few requests are needed, so they are sent from here.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from assay import http
from assay.errors import InputError, Unavailable, WorkError, known, last_line
from assay.submit.package import Archive

SECONDS = 20.0
"""The longest wait for an answer."""

READY_SECONDS = 60.0
"""How long a head that answers may take until it can start jobs."""

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
STOP_SECONDS = 60
"""How long a job that is stopped may take to save, before Ray kills it."""

NAME = "assay.command"
KEY = "assay.key"


class UnknownJob(InputError):
    """The cluster has no job of that id."""


@dataclass(frozen=True)
class JobInfo:
    """A job as the cluster describes it. `key` is the same for commands that would do the same work."""

    job_id: str
    command: str
    status: str
    started: float
    ended: float | None
    key: str
    message: str
    exit_code: int | None

    @property
    def open(self) -> bool:
        return self.status not in ENDED

    @property
    def seconds(self) -> float:
        return (time.time() if self.ended is None else self.ended) - self.started


@dataclass(frozen=True)
class NewJob:
    """What is submitted."""

    job_id: str
    entrypoint: str
    command: str
    key: str
    working_dir: str
    modules: str
    environment: Mapping[str, str] = field(default_factory=dict)


class Cluster:
    """The jobs of one cluster.

    Every call raises `Unavailable` if nothing answers, and `InputError` if the wrong server answers.
    """

    def __init__(self, address: str, origin: str = "ASSAY_CLUSTER") -> None:
        self.address, self.origin = checked_address(address, origin), origin

    @property
    def host(self) -> str:
        return urlsplit(self.address).netloc

    def check(self) -> None:
        """Raise `InputError` for anything but the dashboard of a Ray of the same version."""
        try:
            there = str(self._json("GET", "/api/version")["ray_version"])
        except (ValueError, KeyError, TypeError, _Refused):
            raise InputError(
                f"{self.origin} {self.address}: not a Ray dashboard: give the address of the head's, http://HEAD:8265"
            ) from None
        here = importlib.metadata.version("ray")
        if there != here:
            raise InputError(
                f"{self.origin} {self.address}: the cluster runs Ray {there}, here is Ray {here}: "
                f"run `pip install ray=={there}` here, or install {here} on the cluster"
            )

    def upload(self, archive: Archive) -> bool:
        """Upload an archive; False if the cluster has it already."""
        path = f"/api/packages/gcs/{archive.name}"
        if self._ask("GET", path).status == 200:
            return False
        answer = self._ask("PUT", path, content=archive.content)
        if answer.status != 200:
            raise WorkError(f"the cluster did not take the package: {last_line(answer.text)}")
        return True

    def submit(self, job: NewJob) -> None:
        runtime = {"working_dir": job.working_dir, "py_modules": [job.modules], "env_vars": dict(job.environment)}
        body = {
            "entrypoint": job.entrypoint,
            "submission_id": job.job_id,
            "runtime_env": runtime,
            "metadata": {NAME: job.command, KEY: job.key},
        }
        limit = time.monotonic() + READY_SECONDS
        while True:
            try:
                self._json("POST", "/api/jobs/", body=body)
                return
            except _Refused as error:
                raise WorkError(f"the cluster did not take the job: {error}") from None
            except Unavailable as error:
                if "No available agent" not in str(error) or time.monotonic() > limit:
                    raise
            time.sleep(1)  # the head has just started

    def list(self) -> list[JobInfo]:
        """The jobs that were submitted by Assay, newest first."""
        found = [
            _info(job)
            for job in self._json("GET", "/api/jobs/")
            if job["type"] == "SUBMISSION" and NAME in (job.get("metadata") or {})
        ]
        return sorted(found, key=lambda job: job.started, reverse=True)

    def info(self, job_id: str) -> JobInfo:
        try:
            return _info(self._json("GET", f"/api/jobs/{job_id}"))
        except _Refused as error:
            if error.status != 404:
                raise
        raise UnknownJob(known("job", job_id, [job.job_id for job in self.list()]))

    def log(self, job_id: str) -> str:
        """All that the job has written, to standard output and standard error."""
        return str(self._json("GET", f"/api/jobs/{job_id}/logs")["logs"])

    def follow_log(self, job_id: str) -> Iterator[bytes]:
        """The same from its beginning, and then what the job adds, until the connection ends: then `Unavailable`."""
        url = f"{self.address}/api/v0/logs/stream?submission_id={quote(job_id)}&lines=-1&interval=1"
        try:
            yield from http.stream(url, _token_header(), SECONDS)
        except http.NoAnswer as error:
            raise Unavailable(f"{self.origin} {self.address}: {error}") from None

    def ask_to_stop(self, job_id: str) -> None:
        """Let the job save and end: its process gets SIGTERM, and is killed after a minute."""
        self._json("POST", f"/api/jobs/{job_id}/stop")

    def _json(self, method: str, path: str, **more: Any) -> Any:
        answer = self._ask(method, path, **more)
        if answer.status != 200:
            raise _Refused(answer.status, last_line(answer.text))
        return answer.json()

    def _ask(self, method: str, path: str, **more: Any) -> http.Answer:
        try:
            answer = http.ask(method, self.address + path, _token_header(), seconds=SECONDS, **more)
        except http.NoAnswer as error:
            raise Unavailable(f"{self.origin} {self.address}: no answer ({error}): {_HINT}") from None
        if answer.status == 401:
            raise InputError(
                f"{self.origin} {self.address}: the cluster requires a token: set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN_PATH to the file with its token"
            )
        if answer.status == 403:
            raise InputError(
                f"{self.origin} {self.address}: the token is not this cluster's: fix RAY_AUTH_TOKEN or the file that "
                "RAY_AUTH_TOKEN_PATH names"
            )
        if answer.status >= 500:
            raise Unavailable(f"{self.origin} {self.address}: {last_line(answer.text)}")
        return answer


_HINT = "is the cluster up, and its dashboard's port reachable from here?"


class _Refused(WorkError):
    """The cluster refused a request."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status


def checked_address(address: str, origin: str) -> str:
    """The address of a dashboard. Raises `InputError` if it cannot be one."""
    try:
        parts = urlsplit(address)
        secret, fits = parts.username or parts.password, parts.scheme in ("http", "https") and bool(parts.hostname)
        assert parts.port != 0
    except (ValueError, AssertionError):
        secret, fits = None, False
    if secret:
        raise InputError(f"{origin}: leave out user and password: the token is given by RAY_AUTH_TOKEN_PATH")
    if not fits or parts.path.strip("/") or parts.query or parts.fragment:
        raise InputError(f"{origin} {address}: write it as http://HEAD:8265, the address of the cluster's dashboard")
    return f"{parts.scheme}://{parts.netloc}"


def _token_header() -> dict[str, str]:
    """The cluster's token, from the same place as Ray takes it."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not token:
        named = os.environ.get("RAY_AUTH_TOKEN_PATH")
        path = Path(named) if named else Path.home() / ".ray" / "auth_token"
        try:
            token = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            if named:
                raise InputError(f"RAY_AUTH_TOKEN_PATH {named}: cannot be read ({last_line(error)})") from None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _info(reply: Mapping[str, Any]) -> JobInfo:
    metadata = reply.get("metadata") or {}
    end = reply.get("end_time")
    return JobInfo(
        job_id=reply["submission_id"] or reply["job_id"],
        command=metadata.get(NAME, reply["entrypoint"]),
        status=reply["status"],
        started=(reply.get("start_time") or 0) / 1000,
        ended=end / 1000 if end else None,
        key=metadata.get(KEY, ""),
        message=reply.get("message") or "",
        exit_code=reply.get("driver_exit_code"),
    )
