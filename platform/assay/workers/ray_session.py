"""The Ray that trainings run on: one of our own on loopback, or the cluster at ASSAY_RAY_ADDRESS."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from assay.config.experiment import TrainConfig
from assay.errors import Unavailable, last_line
from assay.log import Log
from assay.settings import Settings
from assay.state import RAY
from assay.workers import nodes
from assay.workers.plan import Slots, local_slots
from assay.workers.ray_environment import RAY_ENVIRONMENT, with_room_for_sockets
from assay.workers.ray_private import listen_on_loopback_alone, read_authentication_again, servers_of_trainings_alone

SESSION_SECONDS = 24 * 3600
END_SECONDS = 2.0


@contextmanager
def cluster_joined(settings: Settings, log: Log) -> Iterator[None]:
    """Stay connected to the cluster at `settings.ray_address`, if there is one."""
    if not settings.ray_address:
        yield
        return
    with ray_running(settings, log):
        yield


@contextmanager
def ray_running(settings: Settings, log: Log) -> Iterator[None]:
    """A Ray of our own on loopback, or the cluster at `settings.ray_address`."""
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
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if settings.ray_address:
        try:
            ray.init(settings.ray_address, **common)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise Unavailable(f"ASSAY_RAY_ADDRESS {settings.ray_address}: no Ray there ({last_line(error)})") from None
    else:
        log("starting Ray on this machine")
        listen_on_loopback_alone()
        folder = with_room_for_sockets(settings.state / RAY, f"assay-ray-{os.getuid()}")
        _forget_sessions(folder)
        with servers_of_trainings_alone():
            ray.init("local", num_cpus=local_slots().cpus, include_dashboard=False, _temp_dir=str(folder), **common)
    try:
        yield
    finally:
        ours = set() if settings.ray_address else _ray_processes()
        ray.shutdown()
        _end(ours)


def available_slots(settings: Settings, train: TrainConfig, log: Log) -> Slots:
    """The slots to train on: this machine's cores and GPUs, or the cluster's."""
    with cluster_joined(settings, log):
        return nodes.slots(train, settings.wait, log) if settings.ray_address else local_slots()


def _ray_processes() -> set[psutil.Process]:
    """The processes that Ray has started for this one: its servers and workers."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith(("ray::", "raylet", "gcs_server")):
                found.add(process)
    return found


def _end(processes: set[psutil.Process]) -> None:
    """Kill what outlives Ray's shutdown: sometimes a worker misses that its raylet is gone, and sleeps forever."""
    _, alive = psutil.wait_procs(processes, timeout=END_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _forget_sessions(folder: Path) -> None:
    """Remove Ray's logs of sessions older than a day, which it keeps forever."""
    for session in folder.glob("session_2*"):
        if time.time() - session.stat().st_mtime > SESSION_SECONDS:
            shutil.rmtree(session, ignore_errors=True)
