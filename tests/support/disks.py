"""Disks that are full or read-only: a project on a small file system of its own, mounted where nobody else sees it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project

FILLER = "filler"


@dataclass(frozen=True)
class Disk:
    """A project that lies alone on a file system; the folder of the project itself shows it only to `run`."""

    project: Project
    words: tuple[str, ...]

    def run(self, *command: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a program there; `code` is the exit code to insist on."""
        return self.project.run(*self.words, *command, code=code)

    def fill(self, left: int = 0) -> None:
        """Fill the disk up to the last `left` KiB."""
        self.run("sh", "-c", f"cat /dev/zero > {FILLER} 2> /dev/null; truncate -s -{left}K {FILLER}")

    def free(self) -> None:
        """Make room again."""
        self.run("rm", "-f", FILLER)

    def remount(self, options: str, path: str = ".") -> None:
        """Change how the disk, or one folder of it, is mounted: `ro`, `rw`."""
        self.run(
            "sh", "-c", f"mountpoint -q {path} || mount --bind {path} {path}; mount -o remount,bind,{options} {path}"
        )


@contextmanager
def small_disk(project: Project, size: int) -> Iterator[Disk]:
    """The project on a file system of `size` MiB. Skips the test where nothing may be mounted."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "echo ready; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            pytest.skip("nothing may be mounted here")
        there = Disk(project, ("nsenter", "--mount", "--target", str(holder.pid), f"--wdns={project.root}"))
        root = project.root
        steps = f"mkdir {root}.disk && mount -t tmpfs -o size={size}m none {root}.disk && cp -a {root}/. {root}.disk"
        project.run(*there.words, "sh", "-c", f"{steps} && mount --move {root}.disk {root}")
        yield there
    finally:
        holder.kill()
        holder.communicate()
