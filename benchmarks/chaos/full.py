"""A file system that is really full: one line with the path, nothing corrupt, and the same command continues with room.

The project lies on a small file system in memory, which only root can mount.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.chaos.tools.project import call, commands, flow, template
from benchmarks.common import figure, run

NAME = "digits-0"
LEFT = (0, 20_000, 200_000, 1_000_000)
"""Bytes that are left when a command starts."""
SEARCH = {
    "experiment": NAME, "algorithm": "random", "budget": {"trials": 2}, "parallel": 1,
    "space": {"optimizer.lr": {"choice": [0.001, 0.003]}},
}  # fmt: skip


def main(*left: str) -> None:
    """Fill the file system up to so many bytes; without numbers, up to several."""
    if not can_mount():
        figure("chaos full", skipped="only root can mount a file system")
        return
    faults: list[dict[str, Any]] = []
    tried: Counter[str] = Counter()
    with template(["digits"]) as project:
        for room in [int(value) for value in left] or LEFT:
            with _small_copy(project) as copy:
                for what, command in _work(copy):
                    faults += [{"at": [what, room], "what": line} for line in _without_room(copy, command, room)]
                    tried[what] += 1
    figure("chaos full", tried=dict(tried), faults=len(faults), first=faults[:20])


def can_mount() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def _small_copy(project: Path, size: int = 120_000_000) -> Iterator[Path]:
    """A copy of a project on a file system of its own, temporary files and all."""
    place = project.parent / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=True)
    try:
        copy = place / "p"
        shutil.copytree(project, copy, symlinks=True, ignore=shutil.ignore_patterns("tests", "docs"))
        add_search(copy)
        yield copy
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def add_search(project: Path) -> None:
    from ruamel.yaml import YAML

    yaml, path = YAML(), project / "params.yaml"
    data = yaml.load(path)
    data["searches"] = {"s": SEARCH}
    yaml.dump(data, path)


def _work(project: Path) -> list[tuple[str, list[str]]]:
    """What is tried, in this order."""
    train, evaluate, register = commands(NAME)
    images = _some_images(project)
    return [
        ("data add", [sys.executable, "-m", "assay", "data", "add", "pets", str(images)]),
        ("train", train),
        ("evaluate", evaluate),
        ("register", register),
        ("search", [sys.executable, "-m", "assay", "tune", "s"]),
        ("flow", flow(NAME)),
    ]


def _some_images(project: Path) -> Path:
    """A folder of two classes, outside the small file system."""
    import numpy as np
    from PIL import Image

    folder = project.parents[1] / "pets"
    if not folder.exists():
        noise = np.random.default_rng(0)
        for kind in ("cats", "dogs"):
            (folder / kind).mkdir(parents=True)
            for number in range(20):
                pixels = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    return folder


def _without_room(project: Path, command: Sequence[str], left: int) -> list[str]:
    """Give a command on a full file system, and again once there is room; what is wrong."""
    ballast, faults = project.parent / "ballast", []
    free = shutil.disk_usage(project).free
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free - left, 1))
    full = call(project, command, {"TMPDIR": str(project.parent)})
    ballast.unlink()
    if full.hung:
        faults.append(f"hung: {full.said[-300:]}")
    if "Traceback" in full.said:
        faults.append(f"traceback: {full.said[-800:]}")
    if full.code and not any(
        line.startswith("error: ") and str(project.parent) in line for line in full.said.splitlines()
    ):
        faults.append(f"exit code {full.code} without a line that names the path: {full.said[-400:]}")
    if full.code not in (0, 1, 2):
        faults.append(f"exit code {full.code}: {full.said[-300:]}")
    again = call(project, command)
    if again.code:
        faults.append(f"still {again.code} with room: {again.said[-400:]}")
    if (
        "data" in command
        and (state := run(project, "dvc", "status", "data@pets").strip()) != "Data and pipelines are up to date."
    ):
        faults.append(f"after it: {state[-300:]}")
    return faults
