"""Three minutes of `benchmarks/chaos`: kills, signals, stops between system calls, damage, twins."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.common import REPOSITORY, environment

PARTS = {"calls": ("24",), "damage": ("7",), "kills": ("1", "digits-0"), "signals": ("1", "digits-0"), "twins": ("1",)}
"""Full disks have tests of their own."""
SEED = "69"
"""With which a training and a registration are killed, but no flow, which takes longer."""


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_false_or_lost(part: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", part, *PARTS[part]],
        cwd=REPOSITORY, env={**environment(REPOSITORY), "CHAOS_SEED": SEED}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *_, found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert found.get("skipped") or not found["faults"], done.stdout
