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
from tests.support.families import EACH_EXPERIMENT, EXPERIMENTS, REPOSITORY, losses, opened, small
from tests.support.two_workers import BATCH

FEW, MANY = 4, 20
"""Steps; a fault of the batch normalization or of the gradients shows in the second."""
Losses = dict[str, list[dict[str, float]]]


@pytest.fixture(scope="session")
def of_two_workers(datasets: Path) -> Callable[[int], Losses]:
    """What two real processes report of so many first steps, by experiment: few of one of each task, or many of all."""

    @cache
    def report(steps: int) -> Losses:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "platform"), str(REPOSITORY)))}
        command = [sys.executable, "-m", "tests.support.two_workers"]
        names = [case.values[0] for case in EACH_EXPERIMENT if steps == MANY or not case.marks]
        both = [
            subprocess.Popen([*command, str(rank), str(datasets), str(steps), *names], env=environment, cwd=REPOSITORY)
            for rank in range(2)
        ]
        assert [process.wait(280) for process in both] == [0, 0]
        return json.loads((datasets / f"losses-{steps}.json").read_text())

    return report


@pytest.mark.parametrize(
    ("name", "steps"),
    [pytest.param(*case.values, FEW) for case in EACH_EXPERIMENT if not case.marks]
    + [pytest.param(name, MANY, marks=pytest.mark.thorough) for name in EXPERIMENTS],
)
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
