"""A project with small experiments of the four families, made once and copied for each disturbance."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import BIN, environment, figure, fresh_clone, run

LIMIT = 180.0
"""Seconds after which a command that goes on counts as hung."""
TRAIN = {"checkpoint_seconds": 0}
"""A checkpoint whenever there can be one."""

DATASETS: dict[str, Any] = {
    "digits": {"source": {"kind": "digits"}},
    "scenes": {"source": {"kind": "digit_scenes", "scenes": 60, "size": 64}},
    "paint": {"source": {"kind": "paint"}, "split": {"train": 0.5, "val": 0.25, "test": 0.25}},
}
FAMILIES: dict[str, Any] = {
    "digits": {
        "task": {"name": "classification", "architecture": "small_cnn", "image_size": 8, "width": 8},
        "data": "digits",
        "train": {"epochs": 4, "batch_size": 64},
    },
    "scenes": {
        "task": {"name": "detection", "image_size": 64, "strides": [8, 16]},
        "data": "scenes",
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "train": {"epochs": 2, "batch_size": 8, "clip": 10.0},
    },
    "gan": {
        "task": {"name": "gan", "image_size": 8},
        "data": "digits",
        "optimizer": {"name": "adam", "lr": 2e-3, "betas": [0.0, 0.99]},
        "train": {"epochs": 2, "batch_size": 64},
    },
    "paint": {
        "task": {"name": "style_transfer", "image_size": 64, "crop_size": 48},
        "data": "paint",
        "optimizer": {"name": "adam", "lr": 2e-3},
        "train": {"epochs": 2, "batch_size": 4},
    },
}
WORKERS = (0, 1, 2)
FLOW_SECONDS = 12.0
"""What a flow needs besides its stages, about."""
EXPERIMENTS = tuple(f"{family}-{workers}" for family in FAMILIES for workers in WORKERS)
"""Each family with each number of workers."""


@dataclass(frozen=True)
class Ended:
    """How a program ended. `hung`: it had to be killed."""

    code: int
    said: str
    seconds: float
    hung: bool = False


def chance(name: str) -> random.Random:
    """The random numbers of a part, which prints its seed."""
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(10**6))
    figure(f"chaos {name}, seed", seed=seed)
    return random.Random(seed)


def say(what: str, done: int, of: int, faults: Collection[Any]) -> None:
    """How far a part is, on standard error."""
    print(f"{what}: {done} of {of}, {len(faults)} faults", file=sys.stderr, flush=True)


@contextmanager
def template(families: Collection[str] = tuple(FAMILIES)) -> Iterator[Path]:
    """A project with the experiments of these families, their data recorded, and an empty tracking store."""
    from ruamel.yaml import YAML

    with fresh_clone() as clone:
        experiments = {}
        for name in EXPERIMENTS:
            family, _, workers = name.partition("-")
            if family in families:
                block = FAMILIES[family]
                experiments[name] = {**block, "train": {**TRAIN, **block["train"], "workers": int(workers)}}
        used = {block["data"] for block in experiments.values()}
        data = {"datasets": {name: DATASETS[name] for name in sorted(used)}, "experiments": experiments}
        with (clone / "params.yaml").open("w") as file:
            YAML().dump(data, file)
        run(clone, "git", "-c", "user.name=chaos", "-c", "user.email=chaos@localhost", "commit", "-qam", "small")
        run(clone, "dvc", "repro", "-q", *(f"data@{name}" for name in sorted(used)))
        run(clone, str(BIN / "assay"), "runs", "--json")  # makes the store's schema, which takes seconds
        yield clone


@contextmanager
def copied(project: Path, name: str = "copy") -> Iterator[Path]:
    """A copy of a project beside it, hard links and all, removed at the end."""
    folder = project.parent / name
    subprocess.run(["cp", "--archive", str(project), str(folder)], check=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def commands(experiment: str) -> list[list[str]]:
    """From training to the registry."""
    return [[sys.executable, "-m", "assay", verb, experiment] for verb in ("train", "evaluate", "register")]


def flow(experiment: str) -> list[str]:
    """The same by a flow, which brings its own server."""
    return [sys.executable, "-m", "pipelines", "train-and-promote", experiment]


def start(project: Path, command: Sequence[str], variables: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own; what it says goes to a file, which no pipe can hold up."""
    with said_in(project).open("wb") as said:
        return subprocess.Popen(
            command, cwd=project, env={**environment(project), **(variables or {})}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        )  # fmt: skip


def said_in(project: Path) -> Path:
    """The file with what the last program said: beside all copies of a project, on no file system that is filled up."""
    return next(folder for folder in project.parents if folder.parent == Path(tempfile.gettempdir())) / "said.txt"


def end(project: Path, child: subprocess.Popen[bytes], began: float, limit: float = LIMIT) -> Ended:
    """Wait for a program's end."""
    try:
        code, hung = child.wait(limit), False
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        code, hung = child.wait(), True
    said = said_in(project).read_text(errors="replace")
    return Ended(code, said, time.monotonic() - began, hung)


def call(project: Path, command: Sequence[str], variables: Mapping[str, str] | None = None) -> Ended:
    """Run a program to its end, undisturbed."""
    began = time.monotonic()
    return end(project, start(project, command, variables), began)
