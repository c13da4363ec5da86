"""`assay up` and `assay down`, ten times over, with one process killed at random in between: seconds, what is left."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

import psutil

from benchmarks.common import assay, figure, fresh_clone, spread

ROUNDS = 10


def main() -> None:
    from assay.services.processes import of_setup
    from assay.services.ray import ray_folder

    chance = random.Random(0)
    seconds, healed, killed, left, exposed = [], [], [], 0, 0
    with fresh_clone() as clone:
        first = _free_block()
        for _ in range(ROUNDS):
            seconds.append(_timed_up(clone, first))
            victim = chance.choice(_watched(clone))
            killed.append(victim.cmdline()[2])
            victim.kill()
            time.sleep(2)  # whoever watches over it looks every second
            healed.append(_timed_up(clone, first))
            exposed += _not_loopback(clone)
            assay(clone, "down")
            sockets = [path for path in ray_folder(clone / ".assay").rglob("*") if path.is_socket()]
            left += len(of_setup(clone)) + len(sockets) + _taken(first)
    figure("assay up, seconds until all are healthy", rounds=ROUNDS, **spread(seconds, 1))
    figure("assay up after a kill -9 of one process, seconds", rounds=ROUNDS, killed=killed, **spread(healed, 1))
    figure("assay up, ports not on loopback", count=exposed)
    figure("assay down, processes, ports and sockets left", count=left)


def _watched(clone: Path) -> list[psutil.Process]:
    """The supervisor and the first process of each service: without any of them something is missing."""
    from assay.services.setup import supervisor_of

    supervisor = supervisor_of(clone)
    assert supervisor is not None
    return [supervisor, *supervisor.children()]


def _timed_up(clone: Path, first: int) -> float:
    started = time.monotonic()
    assay(clone, "up", "--ports", str(first))
    return time.monotonic() - started


def _not_loopback(clone: Path) -> int:
    from assay.services.processes import of_setup

    found = [opened for process in of_setup(clone) for opened in process.net_connections("inet")]
    listening = {opened.laddr.ip.removeprefix("::ffff:") for opened in found if opened.status == psutil.CONN_LISTEN}
    return len(listening - {"127.0.0.1", "::1"})


def _taken(first: int) -> int:
    taken = 0
    for port in range(first, first + 4):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken += 1
    return taken


def _free_block() -> int:
    return next(first for first in range(21000, 30000, 10) if not _taken(first))


if __name__ == "__main__":
    main()
