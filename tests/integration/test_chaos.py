"""A few minutes of `benchmarks/chaos`: kills, signals, stops between system calls, damage, twins."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.common import REPOSITORY, environment

PARTS = {"calls": ("12",), "damage": ("14",), "kills": ("1", "digits-0"), "signals": ("1", "digits-0"), "twins": ("1",)}
"""Full disks have tests of their own."""


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_false_or_lost(part: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", part, *PARTS[part]],
        cwd=REPOSITORY, env=environment(REPOSITORY), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *_, found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert found.get("skipped") or not found["faults"], done.stdout
