"""A few minutes of `benchmarks/chaos`: kills, signals, stops between system calls, damage, a full disk, twins."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.common import REPOSITORY, environment

PARTS = {
    "calls": ("9",),
    "damage": ("40",),
    "full": ("20000",),
    "kills": ("3", "digits-0"),
    "signals": ("3", "digits-0"),
    "twins": ("2",),
}


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
