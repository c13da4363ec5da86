"""Output that nobody reads any more is dropped; output that finds no room is a failure."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = """
import os, subprocess, sys
from assay.program import outlive_output
outlive_output()
done = open(sys.argv[1], "w")
sys.stdin.readline()
for number in range(3):
    print("x" * 20000)
    print("line", file=sys.stderr)
sys.stdout.flush()
subprocess.run(["sh", "-c", "echo child && echo child >&2"], check=True)
os.write(1, b"of a library")
done.write("to the end")
done.close()
"""


def program(done: Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(done)]


def test_a_reader_that_leaves_ends_nothing(tmp_path: Path) -> None:
    done = tmp_path / "done"
    pipe = subprocess.PIPE
    with subprocess.Popen(program(done), stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        child.stderr.close()
        child.communicate(b"go\n", timeout=60)
        assert child.returncode == 0
    assert done.read_text() == "to the end"


def test_a_terminal_that_is_closed_ends_nothing(tmp_path: Path) -> None:
    done = tmp_path / "done"
    ours, theirs = pty.openpty()
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with subprocess.Popen(program(done), stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, **ignoring) as child:
        os.close(theirs)
        os.close(ours)
        child.communicate(b"go\n", timeout=60)
        assert child.returncode == 0
    assert done.read_text() == "to the end"


def test_output_that_was_never_there_is_nobodys(tmp_path: Path) -> None:
    done = tmp_path / "done"
    closed = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *program(done)]
    assert subprocess.run(closed, input=b"go\n", timeout=60).returncode == 0
    assert done.read_text() == "to the end"


def test_what_is_written_arrives_in_order_and_as_it_is() -> None:
    code = """
    import sys
    print("before")
    from assay.program import outlive_output
    outlive_output()
    print("aµ→")
    sys.stdout.flush()
    print("err", file=sys.stderr)
    """
    ran = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(ran, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.stdout.decode() == "before\naµ→\n"
    assert done.stderr == b"err\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_finds_no_room_is_a_failure() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "assay", "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output: the disk is full: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_verb_whose_reader_has_left_ends_well() -> None:
    with subprocess.Popen([sys.executable, "-m", "assay", "--help"], stdout=-1, stderr=-1, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(60) == 0
