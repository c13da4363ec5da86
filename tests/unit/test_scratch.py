"""Scratch folders: gone at the end, and gone with the next command after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from assay.scratch import scratch_folder
from assay.state import SCRATCH, state_folder

HOLD = """
import sys
from pathlib import Path
from assay.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "weights").write_bytes(b"x")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_it_is_removed_at_the_end_also_of_a_failure(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch_folder(tmp_path) as folder:
            (folder / "file").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list((state_folder(tmp_path) / SCRATCH).iterdir()) == []


def test_the_next_command_clears_what_a_kill_left_and_nothing_else(tmp_path: Path) -> None:
    hold = [sys.executable, "-c", HOLD, str(tmp_path)]
    with (
        subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as alive,
    ):
        assert killed.stdout is not None
        assert alive.stdout is not None
        left, used = Path(killed.stdout.readline().strip()), Path(alive.stdout.readline().strip())
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        with scratch_folder(tmp_path):
            assert not left.exists()
            assert (used / "weights").exists()
        alive.kill()
