"""Which process made or holds something, and whether it still lives: for locks, leases, and what a kill leaves behind.

A process id alone is no answer: ids are used again, a container counts its own, and a clock may be set. So an owner is
the boot of its machine, its namespace of process ids, its id, and its start counted from that boot.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Life = Literal["alive", "gone", "elsewhere"]
"""`elsewhere`: on another machine or in another container, where only a lease can tell."""


@dataclass(frozen=True)
class Owner:
    """A process. `machine` changes with each boot; `started` counts from the boot, in the system's ticks."""

    machine: str
    namespace: str
    pid: int
    started: int

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        return cls(_machine(), _namespace(), os.getpid(), _started(os.getpid()) or 0)

    @classmethod
    def of(cls, pid: int) -> Owner | None:
        """A process of this machine; None if there is none of that id."""
        started = _started(pid)
        return None if started is None else cls(_machine(), _namespace(), pid, started)

    @classmethod
    def read(cls, data: Any) -> Owner | None:
        """What `plain` wrote; None if it is something else."""
        try:
            return cls(str(data["machine"]), str(data["namespace"]), int(data["pid"]), int(data["started"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    @classmethod
    def parse(cls, text: str | bytes) -> Owner | None:
        """What `text` wrote; None if it is something else."""
        try:
            return cls.read(json.loads(text))
        except (ValueError, RecursionError):
            return None

    @property
    def life(self) -> Life:
        if self.machine != _machine():
            return "elsewhere"
        if self.namespace != _namespace():
            return "elsewhere"
        return "alive" if _started(self.pid) == self.started else "gone"

    @property
    def label(self) -> str:
        """The owner as a part of a file's name: `life_of` answers from it alone."""
        return f"{_place(self.machine, self.namespace)}-{self.pid}-{self.started}"

    def plain(self) -> Mapping[str, Any]:
        return asdict(self)

    def text(self) -> str:
        return json.dumps(self.plain())


def life_of(label: str) -> Life | None:
    """Whether the process of a label lives; None if it is no label."""
    place, _, process = label.partition("-")
    pid, _, started = process.partition("-")
    if not (pid.isdigit() and started.isdigit()):
        return None
    if place != _place(_machine(), _namespace()):
        return "elsewhere"
    return "alive" if _started(int(pid)) == int(started) else "gone"


def _place(machine: str, namespace: str) -> str:
    return hashlib.sha256(f"{machine} {namespace}".encode()).hexdigest()[:12]


@cache
def _machine() -> str:
    """The id of this boot; where the system has none, its name and the time of the boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import socket

        import psutil

        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def _namespace() -> str:
    """Not kept: a process may enter another one."""
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process started, by the clock that nobody sets; None if it is gone, or dead and only not yet reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _started_elsewhere(pid)
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before may contain anything
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _started_elsewhere(pid: int) -> int | None:
    """The same on a system without `/proc`."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 100)
    except psutil.Error:
        return None
