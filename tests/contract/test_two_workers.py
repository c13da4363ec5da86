"""Two workers learn what one learns: every experiment, in two real processes against this one, in double precision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from assay.train.context import LocalContext
from tests.support.families import EXPERIMENTS, REPOSITORY, evaluated, losses, opened, small
from tests.support.two_workers import BATCH, COUNTS

Losses = dict[str, list[dict[str, float]]]


@pytest.fixture(scope="session")
def of_two_workers(datasets: Path) -> Callable[[int], Losses]:
    """What two real processes report of so many first steps, by experiment."""

    @cache
    def report(steps: int) -> Losses:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "platform"), str(REPOSITORY)))}
        command = [sys.executable, "-m", "tests.support.two_workers"]
        both = [
            subprocess.Popen([*command, str(rank), str(datasets), str(steps)], env=environment, cwd=REPOSITORY)
            for rank in range(2)
        ]
        assert [process.wait(280) for process in both] == [0, 0]
        return json.loads((datasets / f"losses-{steps}.json").read_text())

    return report


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_two_workers_measure_what_one_measures(
    name: str, datasets: Path, of_two_workers: Callable[[int], Losses], tmp_path: Path
) -> None:
    """Also if there are fewer samples than workers."""
    of_two_workers(4)
    config, context = small(name, BATCH), LocalContext(tmp_path, torch.device("cpu"), 1)
    for count, two in zip(COUNTS, json.loads((datasets / "metrics-4.json").read_text())[name], strict=True):
        one = evaluated(config, opened(config, datasets), context, count)
        assert two == pytest.approx(dict(one), rel=1e-5, abs=1e-6), f"{count} samples"


@pytest.mark.parametrize("steps", [4, pytest.param(20, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_two_workers_learn_what_one_learns(
    name: str, steps: int, datasets: Path, of_two_workers: Callable[[int], Losses], tmp_path: Path
) -> None:
    config = small(name, BATCH)
    alone = losses(config, opened(config, datasets), LocalContext(tmp_path, torch.device("cpu"), 1), steps)
    two = of_two_workers(steps)[name]
    assert len(alone) == steps
    assert alone[0].keys() == two[0].keys()
    for step, (one, of_two) in enumerate(zip(alone, two, strict=True)):
        assert of_two == pytest.approx(dict(one), rel=0, abs=1e-5), f"step {step}"
