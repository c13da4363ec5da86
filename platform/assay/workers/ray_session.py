"""The Ray that trainings run on: one of our own on loopback, or the cluster at ASSAY_RAY_ADDRESS.

Whatever of it dies or hangs, each wait for it has a limit, and a new one starts clean.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from assay.config.experiment import TrainConfig
from assay.errors import Interrupted, Unavailable, last_line
from assay.log import Log
from assay.settings import Settings
from assay.signals import STOPPING
from assay.state import RAY
from assay.workers import nodes
from assay.workers.deaths import TICK_SECONDS, hear, pause
from assay.workers.plan import Slots, local_slots
from assay.workers.ray_environment import RAY_ENVIRONMENT, with_room_for_sockets
from assay.workers.ray_leftovers import clear_sessions, end, note_owner, own_sessions, processes_of
from assay.workers.ray_private import (
    listen_on_loopback_alone,
    no_shutdown_at_exit,
    print_no_errors,
    read_authentication_again,
    servers_of_their_own_session,
    servers_of_trainings_alone,
)

START_SECONDS = 60.0
SHUTDOWN_SECONDS = 5.0
STARTS = 3
"""Attempts to start a Ray of our own."""
THREAD = "ray"
"""The name of the thread that has Ray."""


class RayDied(Exception):
    """Our own Ray did not start, or its servers are gone; what ran on it has to run again."""


@contextmanager
def cluster_joined(settings: Settings, log: Log) -> Iterator[None]:
    """Stay connected to the cluster at `settings.ray_address`, if there is one."""
    if not settings.ray_address:
        yield
        return
    with ray_running(settings, log):
        yield


@contextmanager
def ray_running(settings: Settings, log: Log, stopped: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """A Ray of our own on loopback, or the cluster at `settings.ray_address`.

    Args:
        stopped: whether the user has asked to stop; looked at while Ray starts.

    Raises:
        Unavailable: there is no Ray at the address, or our own does not start.
        Interrupted: a stop was requested while Ray started.
    """
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    if not settings.ray_address:  # otherwise Ray writes a token into the home folder
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    read_authentication_again()
    print_no_errors()
    with _joined(settings.ray_address, stopped) if settings.ray_address else _own(settings, log, stopped):
        yield


COMMON: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}


@contextmanager
def _joined(address: str, stopped: Callable[[], bool]) -> Iterator[None]:
    import ray

    keeper = _Keeper(lambda: ray.init(address, **COMMON))
    try:
        try:
            keeper.start(stopped)
        except (ConnectionError, ValueError, RuntimeError, RayDied) as error:
            raise Unavailable(f"ASSAY_RAY_ADDRESS {address}: no Ray there ({last_line(error)})") from None
        yield
    finally:
        keeper.end()


@contextmanager
def _own(settings: Settings, log: Log, stopped: Callable[[], bool]) -> Iterator[None]:
    log("starting Ray on this machine")
    listen_on_loopback_alone()
    folder = with_room_for_sockets(settings.state / RAY, f"assay-ray-{os.getuid()}")
    clear_sessions(folder)
    keeper = _started(folder, log, stopped)
    try:
        yield
    except RayDied:
        end(_processes(folder), 0)  # first, so that the shutdown waits for none of them
        raise
    finally:
        _end_own(keeper, folder)


def _started(folder: Path, log: Log, stopped: Callable[[], bool]) -> _Keeper:
    import ray

    def begin() -> None:
        with servers_of_trainings_alone(), servers_of_their_own_session():
            ray.init("local", num_cpus=local_slots().cpus, include_dashboard=False, _temp_dir=str(folder), **COMMON)
        note_owner(folder)

    for left in range(STARTS - 1, -1, -1):
        keeper = _Keeper(begin)
        try:
            keeper.start(stopped)
            return keeper
        except Interrupted:
            end(_processes(folder), 0)
            _end_own(keeper, folder, 0)
            raise
        except Exception as error:
            end(_processes(folder), 0)
            _end_own(keeper, folder)
            if not isinstance(error, (RayDied, OSError, RuntimeError)) and type(error) is not Exception:
                raise
            if not left:
                raise Unavailable(f"Ray did not start on this machine, {STARTS} times ({last_line(error)})") from None
            log(f"Ray did not start ({last_line(error)}); trying again")
        except BaseException:
            end(_processes(folder), 0)
            raise
    raise AssertionError


class _Keeper:
    """The thread that starts Ray and ends it, while the main thread hears signals and keeps the time.

    It lives as long as Ray: Linux ends Ray's servers with the thread that started them.
    """

    def __init__(self, begin: Callable[[], object]) -> None:
        self.begin = begin
        self.began, self.over = threading.Event(), threading.Event()
        self.failure: Exception | None = None
        self.thread = threading.Thread(target=self._keep, name=THREAD, daemon=True)

    def _keep(self) -> None:
        import ray

        try:
            self.begin()
        except Exception as error:  # raised by `start`
            self.failure = error
        self.began.set()
        self.over.wait()
        with suppress(Exception):  # of a Ray that has died
            ray.shutdown()

    def start(self, stopped: Callable[[], bool]) -> None:
        """Raises what `begin` raised; `RayDied` if it hangs, `Interrupted` if a stop was requested, `Unavailable` if an
        earlier Ray hangs in this process, which can have only one.
        """
        limit = time.monotonic() + START_SECONDS
        while any(thread.name == THREAD for thread in threading.enumerate()):
            pause(TICK_SECONDS, stopped)
            if time.monotonic() > limit:
                raise Unavailable("Ray hangs in this process and cannot be started anew: run the same command again")
        self.thread.start()
        limit = time.monotonic() + START_SECONDS
        while not self.began.wait(TICK_SECONDS):
            hear(stopped)
            if time.monotonic() > limit:
                raise RayDied(f"no answer for {START_SECONDS:.0f} s")
        _hear_signals_again()
        if self.failure is not None:
            raise self.failure

    def end(self, seconds: float = SHUTDOWN_SECONDS) -> None:
        """End Ray, if it was begun; leave it alone if it has not ended after so many seconds."""
        self.over.set()
        if self.thread.ident is not None:
            self.thread.join(seconds)
            if self.thread.is_alive():
                no_shutdown_at_exit()


def _hear_signals_again() -> None:
    """Ray has replaced the handler of SIGTERM beneath Python by one that prints its stack and ends the process."""
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            signal.signal(number, signal.getsignal(number))


def _end_own(keeper: _Keeper, folder: Path, seconds: float = SHUTDOWN_SECONDS) -> None:
    """End our own Ray, and what outlives it: sometimes a worker misses that its raylet is gone, and sleeps forever."""
    left = _processes(folder)
    keeper.end(seconds)
    end(left)
    for session in own_sessions(folder):
        shutil.rmtree(session, ignore_errors=True)


def _processes(folder: Path) -> set[psutil.Process]:
    """The processes of the Rays that this process has started: servers and workers."""
    found = processes_of(own_sessions(folder))
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.name().startswith(("ray::", "raylet", "gcs_server")):
                found.add(process)
    return found


def available_slots(settings: Settings, train: TrainConfig, log: Log) -> Slots:
    """The slots to train on: this machine's cores and GPUs, or the cluster's."""
    with cluster_joined(settings, log):
        return nodes.slots(train, settings.wait, log) if settings.ray_address else local_slots()
