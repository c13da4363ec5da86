"""Runs a job's workers, here or on Ray, while the main thread keeps the signals and the progress."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from assay.config import TrainConfig
from assay.errors import AssayError, Unavailable, WorkError
from assay.services.ray import RAY_ENVIRONMENT, with_room_for_sockets
from assay.settings import Settings
from assay.train import cluster
from assay.train.folder import FAILURE, OUTCOME, STOP
from assay.train.mirror import Receiver, receiving
from assay.train.object_store import ObjectStore
from assay.train.plan import Plan, Slots, local_slots
from assay.train.worker import Job, work_here, work_in_ray

ATTEMPTS = 3  # of a job whose workers die; a job that fails is not tried again
TICK_SECONDS = 0.2
SESSION_SECONDS = 24 * 3600
END_SECONDS = 2.0


def launch(
    job: Job, plan: Plan, settings: Settings, tick: Callable[[], None], say: Callable[[str], None]
) -> dict[str, Any]:
    """Train to the end or to a stop, calling `tick` several times a second.

    Returns:
        The outcome that rank 0 wrote.

    Raises:
        WorkError: the training failed, or its workers died too often.
    """
    folder = Path(job.folder)
    forget_end(folder, job.store)
    if plan.workers == 0:
        run_watched(lambda: work_here(job), folder, tick, say)
    else:
        with ray_running(settings, say), receiving(job.store, folder, say) as receiver:
            if settings.ray_address:
                cluster.wait_for_free(plan, None if settings.wait else cluster.SETTLE_SECONDS, say)
            say(f"starting {plan.workers} workers on {plan.device}, {plan.threads} threads each")
            run_watched(lambda: train_on_ray(job, plan, settings.runs, say, receiver), folder, tick, say)
    return _read(folder / OUTCOME)


def forget_end(folder: Path, store: str = "") -> None:
    """Remove what told of an earlier end, or asked for it."""
    for name in (STOP, OUTCOME, FAILURE):
        (folder / name).unlink(missing_ok=True)
    if store:
        ObjectStore(store).remove(STOP, OUTCOME, FAILURE)


def train_on_ray(
    job: Job, plan: Plan, storage: Path, say: Callable[[str], None], receiver: Receiver | None = None
) -> None:
    """Train on Ray's workers to the end or to a stop, again from the last checkpoint where workers die.

    Raises:
        WorkError: the training failed, or its workers died too often.
    """
    folder = Path(job.folder)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _fit(replace(job, attempt=secrets.token_hex(4)), plan, storage)
        except Exception as error:
            if receiver is not None:
                receiver.sync()
            if (folder / FAILURE).exists():
                raise
            if attempt == ATTEMPTS:
                raise WorkError(f"the workers died {ATTEMPTS} times; the last time: {_last(error)}") from error
            say(f"a worker died ({_last(error)}); going on from the last checkpoint")
            if job.project:  # on a cluster, where its node may have died with it
                cluster.wait_for_free(plan, cluster.NODE_SECONDS, say)
    raise AssertionError


@contextmanager
def cluster_joined(settings: Settings, say: Callable[[str], None]) -> Iterator[None]:
    """Stay connected to the cluster at `settings.ray_address`, if there is one, for all that is asked of it."""
    if not settings.ray_address:
        yield
        return
    with ray_running(settings, say):
        yield


@contextmanager
def ray_running(settings: Settings, say: Callable[[str], None]) -> Iterator[None]:
    """A Ray of our own on loopback, or the cluster at `settings.ray_address`."""
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    if not settings.ray_address:  # without one of its own, Ray writes a token into the home folder
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    _read_environment_again()
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if settings.ray_address:
        try:
            ray.init(settings.ray_address, **common)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise Unavailable(f"ASSAY_RAY_ADDRESS {settings.ray_address}: no Ray there ({_last(error)})") from None
    else:
        say("starting Ray on this machine")
        _loopback_only()
        folder = with_room_for_sockets(settings.state / "ray", f"assay-ray-{os.getuid()}")
        _forget_sessions(folder)
        ray.init("local", num_cpus=local_slots().cpus, include_dashboard=False, _temp_dir=str(folder), **common)
    try:
        yield
    finally:
        ours = set() if settings.ray_address else _ray_processes()
        ray.shutdown()
        _end(ours)


def _read_environment_again() -> None:
    """Ray reads how it authenticates when it is first imported, and that was before it was said."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def ray_alive() -> bool:
    """Whether the servers of the Ray that this process started still run; those of a cluster are not looked at."""
    from ray._private import worker

    node = worker._global_node
    if node is None or not node.is_head():
        return node is not None
    return not any(kind in ("raylet", "gcs_server") for kind, _ in node.dead_processes())


def _ray_processes() -> set[psutil.Process]:
    """What Ray has started for this process: its servers and workers."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith(("ray::", "raylet", "gcs_server")):
                found.add(process)
    return found


def _end(processes: set[psutil.Process]) -> None:
    """Kill what outlives Ray's shutdown: now and then a worker misses that its raylet is gone, and sleeps for good."""
    _, alive = psutil.wait_procs(processes, timeout=END_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _loopback_only() -> None:
    """Let Ray's servers listen on 127.0.0.1 alone, as they do on macOS and Windows; on Linux no setting offers it."""
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False


def slots(settings: Settings, train: TrainConfig, say: Callable[[str], None]) -> Slots:
    """What there is to train on: this machine's cores and GPUs, or the cluster's."""
    with cluster_joined(settings, say):
        return cluster.slots(train, settings.wait, say) if settings.ray_address else local_slots()


def _fit(job: Job, plan: Plan, storage: Path) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources: dict[str, float] = {"CPU": plan.threads, **({"GPU": 1} if plan.gpu else {})}
    trainer = TorchTrainer(
        work_in_ray,
        train_loop_config=job.plain(),
        torch_config=TorchConfig(backend="nccl" if plan.gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=plan.workers, use_gpu=plan.gpu, resources_per_worker=resources),
        run_config=RunConfig(name=job.run_id, storage_path=str(storage)),
    )
    trainer.fit()


def run_watched(target: Callable[[], None], folder: Path, tick: Callable[[], None], say: Callable[[str], None]) -> None:
    """Run the target in a thread; the first Ctrl-C or SIGTERM asks it to save and end, the second leaves at once."""
    failure: list[BaseException] = []

    def body() -> None:
        try:
            target()
        except BaseException as error:  # handed to the main thread, which raises it
            failure.append(error)

    thread = threading.Thread(target=body, name="training", daemon=True)
    with _signals(folder, say):
        thread.start()
        while thread.is_alive():
            thread.join(TICK_SECONDS)
            tick()
    tick()
    if failure:
        raise_told(failure[0], folder)


def raise_told(error: BaseException, folder: Path) -> None:
    """What went wrong, from the worker that wrote it down; otherwise the error as it came: a worker died."""
    if isinstance(error, AssayError):
        raise error
    if (folder / FAILURE).exists():
        told = _read(folder / FAILURE)
        more = "" if told["expected"] else f" (the traceback is in {folder / FAILURE})"
        raise WorkError(f"{told['message']}{more}") from error
    raise error


@contextmanager
def _signals(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: object) -> None:
        if (folder / STOP).exists():
            raise KeyboardInterrupt
        (folder / STOP).touch()
        say(f"{signal.Signals(number).name}: saving a checkpoint and stopping; once more to leave at once")

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _forget_sessions(folder: Path) -> None:
    """Remove Ray's logs of sessions older than a day; it never does so itself."""
    for session in folder.glob("session_2*"):
        if time.time() - session.stat().st_mtime > SESSION_SECONDS:
            shutil.rmtree(session, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def _last(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].strip()[:200]
