"""All use of Ray's private parts, for which the pinned version has no public setting or call.

The trainer, a subclass of Ray's that needs Ray on import, stands apart in `ray_trainer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any


class Bystander:
    """Stands in for the actor by which Ray Train's workers agree on checkpoints: ours agree by torch's process group.

    Its process need not import Ray Train.
    """

    def __init__(self, **_: Any) -> None: ...


def read_authentication_again() -> None:
    """Let Ray read how to authenticate again: it does so when it is first imported, before we set it."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def listen_on_loopback_alone() -> None:
    """Let Ray's servers listen on 127.0.0.1 alone, as they do on macOS and Windows; on Linux no setting does."""
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False


@contextmanager
def servers_of_trainings_alone() -> Iterator[None]:
    """Let a Ray that starts in this block start what runs trainings and nothing else.

    Its autoscaler, the forwarder of its logs and its dashboard serve nobody on one machine, and `ray.init` waits for
    them: two seconds each at the start and at the end.
    """
    from ray._private.node import Node

    names = ("start_monitor", "start_log_monitor", "start_api_server")
    kept = {name: getattr(Node, name) for name in names}
    for name in names:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(Node, name, method)


@contextmanager
def servers_of_their_own_session() -> Iterator[None]:
    """Let the servers of a Ray that starts in this block hear no signal that is meant for this process and its group.

    `timeout`, a service manager and a closed terminal signal the whole group, and a training saves with Ray's servers
    and workers still there. They end with this process by other means: the kernel kills them.
    """
    from ray._private import services

    kept = services.ConsolePopen
    vars(services)["ConsolePopen"] = partial(kept, start_new_session=True)
    try:
        yield
    finally:
        vars(services)["ConsolePopen"] = kept


def print_no_errors() -> None:
    """Keep Ray from printing what dies, with the last lines of its logs: whoever waits for it says so in one line."""
    from ray._private import worker

    vars(worker)["listen_error_messages"] = lambda *_: None


SERVERS = ("raylet", "gcs_server")


def ray_alive() -> bool:
    """Whether the servers of the Ray that this process started still run; those of a cluster are not checked."""
    from ray._private import worker

    node = worker._global_node
    if node is None or not node.is_head():
        return node is not None
    return not any(kind in SERVERS for kind, _ in node.dead_processes())


def ray_stopped() -> bool:
    """Whether a server of the Ray that this process started is stopped, as by SIGSTOP."""
    import psutil
    from ray._private import worker

    node = worker._global_node
    if node is None or not node.is_head():
        return False
    for info in (info for kind in SERVERS for info in node.all_processes.get(kind, ())):
        with suppress(psutil.Error):
            if psutil.Process(info.process.pid).status() == psutil.STATUS_STOPPED:
                return True
    return False


def cluster_answers() -> bool:
    """Whether something listens where the head of the cluster is that this process has joined."""
    import socket

    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def no_shutdown_at_exit() -> None:
    """Let this process end without ending Ray, which hangs."""
    import atexit

    from ray._private import worker

    atexit.unregister(worker.shutdown)


def free_resources() -> dict[str, dict[str, float]]:
    """What is free on each node, by the node's id."""
    from ray._private.state import available_resources_per_node

    free: dict[str, dict[str, float]] = available_resources_per_node()  # type: ignore[no-untyped-call]
    return free


def start_head_without_client_server() -> None:
    """Run `ray start` without its client server, which takes another port and which nothing here uses."""
    import importlib

    scripts: Any = importlib.import_module("ray.scripts.scripts")
    scripts.get_ray_client_dependency_error = lambda: ImportError("not offered")
    scripts.main()
