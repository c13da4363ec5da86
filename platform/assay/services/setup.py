"""`assay up` and `assay down`: start the project's services until all are healthy, and end all that belongs to them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import AssayError, InputError, Unavailable, WorkError
from assay.log import Log
from assay.redaction import hide_login
from assay.services.credentials import Credentials, load_credentials, ray_token
from assay.services.mlflow import require_login
from assay.services.net import MARK
from assay.services.parts import services
from assay.services.ports import Ports, addresses, chosen_ports, keep_ports, kept_ports, require_all_free
from assay.services.processes import SAVE_SECONDS, end_workloads, of_setup, sweep
from assay.services.running import read_status, supervised
from assay.services.server import Service, Stop, new_log, stop_signals
from assay.state import CREDENTIALS, LOGS, RAY_TOKEN, SERVICES_STATUS, SUPERVISOR_LOG, UP_LOCK

if TYPE_CHECKING:
    import psutil

    from assay.settings import Settings

SUPERVISOR = "assay.services.supervisor"
WAIT_SECONDS = 120.0
_END_SECONDS = SAVE_SECONDS + 45.0
_POLL = 0.2
_SILENT_SECONDS = 15.0


def up(settings: Settings, first_port: int | None, log: Log) -> dict[str, Any] | None:
    """Start what is not running and wait until all is healthy; None if the user stopped it first.

    Raises:
        InputError: a port is taken, or the environment names another tracking server.
        WorkError: a service could not be started; nothing is left running.
    """
    state = settings.state
    _require_own_store(settings)
    state.mkdir(exist_ok=True)
    with _turn(state, log), stop_signals() as stop:
        ports, started = chosen_ports(state, first_port), not supervised(state)
        credentials = load_credentials(state / CREDENTIALS)
        if not started and ports != kept_ports(state):
            raise InputError(f"--ports {first_port}: the services run elsewhere; run `assay down` first")
        try:
            supervisor = _start(settings, ports, log) if started else None
            healthy = _wait(state, supervisor, services(settings, ports), stop, log)
            if healthy:
                require_login(addresses(ports)["mlflow"], credentials)
        except AssayError:
            if started:
                _end(settings.root.resolve(), state, log)
            raise
        if not healthy:
            if started:
                _end(settings.root.resolve(), state, log)
            return None
    return {"started": started, **pages(addresses(ports), state, credentials)}


def pages(found: dict[str, str], state: Path, credentials: Credentials) -> dict[str, Any]:
    """The addresses for people, and the files with the secrets."""
    return {
        "mlflow": found["mlflow"],
        "prefect": found["prefect"].removesuffix("/api"),
        "ray": found["dashboard"],
        "ray_address": found["ray"],
        "user": credentials.user,
        "credentials_file": str(credentials.file),
        "ray_token_file": str(state / RAY_TOKEN),
    }


def down(settings: Settings, log: Log) -> dict[str, Any]:
    """End all of the project's services and what runs in them, if anything does."""
    state = settings.state
    if not state.exists():
        return {"was_up": False, "ended": 0}
    with _turn(state, log):
        was_up = supervised(state)
        return {"was_up": was_up, "ended": _end(settings.root.resolve(), state, log)}


def _require_own_store(settings: Settings) -> None:
    if settings.tracking.startswith(("http://", "https://")):
        raise InputError(
            f"ASSAY_TRACKING_URI names a server, {hide_login(settings.tracking)}, and `assay up` starts "
            "another; unset it, or name the database that the server should use"
        )


@contextmanager
def _turn(state: Path, log: Log) -> Iterator[None]:
    """One `up` or `down` at a time in a project."""
    from filelock import FileLock, Timeout

    lock = FileLock(state / UP_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log("waiting for another `assay up` or `assay down`")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _start(settings: Settings, ports: Ports, log: Log) -> subprocess.Popen[bytes]:
    """Start a supervisor in a new session, without a terminal, after ending what is left of an earlier setup."""
    root, state = settings.root.resolve(), settings.state
    if left := of_setup(root):
        log(f"ending {len(left)} processes of an earlier setup")
        _end(root, state, log)
    require_all_free(ports)
    keep_ports(state, ports)
    ray_token(state / RAY_TOKEN)
    (state / SERVICES_STATUS).unlink(missing_ok=True)
    handle = new_log(state / SUPERVISOR_LOG)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", SUPERVISOR, str(root)],
            cwd=root,
            env={**os.environ, MARK: str(root)},
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
        )
    finally:
        os.close(handle)


def _wait(
    state: Path, supervisor: subprocess.Popen[bytes] | None, wanted: Sequence[Service], stop: Stop, log: Log
) -> bool:
    """Wait until the supervisor reports every service healthy, and each answers; False if the user stopped it first."""
    began, logged = time.monotonic(), dict[str, str]()
    heard = began
    while not stop.asked:
        status = read_status(state)
        found: dict[str, str] = status.get("services", {})
        for name, now in found.items():
            if logged.get(name, "healthy") != now and now != "waiting":
                log(f"{name}: {now} ({time.monotonic() - began:.0f} s)")
        logged = found
        if status.get("ready") and set(found.values()) == {"healthy"}:
            silent = [service for service in wanted if not service.healthy(0.0)]
            if not silent:
                return True
            _require_answers_soon(silent, heard)
        else:
            heard = time.monotonic()
        if supervisor.poll() is not None if supervisor else not supervised(state):
            raise WorkError(read_status(state).get("failed") or f"the supervisor ended; see {state / SUPERVISOR_LOG}")
        if time.monotonic() - began > WAIT_SECONDS:
            sick = ", ".join(name for name, now in found.items() if now != "healthy")
            raise Unavailable(f"{sick or 'the supervisor'}: not healthy after {WAIT_SECONDS:.0f} s; see {state / LOGS}")
        time.sleep(_POLL)
    return False


def _require_answers_soon(silent: Sequence[Service], heard: float) -> None:
    """The supervisor restarts what has just died, but not what runs and stays silent: that raises `Unavailable`."""
    if time.monotonic() - heard > _SILENT_SECONDS:
        names = ", ".join(service.name for service in silent)
        raise Unavailable(f"{names}: runs, and does not answer; `assay down`, then `assay up`; see {silent[0].log}")


def _end(root: Path, state: Path, log: Log) -> int:
    """End the supervisor and with it the services, then what is left; returns how many processes there were."""
    before = {process.pid for process in of_setup(root)}
    supervisor = supervisor_of(root)
    if supervisor is not None:
        log("ending the services")
        _await_end(supervisor, state, log)
    else:
        end_workloads(root, log)
    sweep(root)
    (state / SERVICES_STATUS).unlink(missing_ok=True)
    return len(before)


def supervisor_of(root: Path) -> psutil.Process | None:
    """The supervisor: the oldest of its name, because a child that it is starting looks like it for a moment."""
    import psutil

    found = []
    for process in of_setup(root):
        with suppress(psutil.Error):
            if SUPERVISOR in process.cmdline():
                found.append((process.create_time(), process.pid, process))
    return min(found)[2] if found else None


def _await_end(supervisor: psutil.Process, state: Path, log: Log) -> None:
    import psutil

    logged = ""
    limit = time.monotonic() + _END_SECONDS
    with suppress(psutil.NoSuchProcess):
        supervisor.terminate()
    while time.monotonic() < limit:
        with suppress(psutil.TimeoutExpired):
            supervisor.wait(timeout=_POLL)
            return
        line = read_status(state).get("ending", "")
        if line.startswith("waiting") and line != logged:
            log(line)
            logged = line
