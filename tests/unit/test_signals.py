"""Signal handlers last as long as their block, in the main thread only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from assay.signals import STOPPING, handled_by


def test_a_handler_answers_for_the_block_and_the_old_one_comes_back() -> None:
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with handled_by(lambda number, _frame: heard.append(number)):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
        with handled_by(signal.SIG_IGN):
            os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("number", STOPPING)
def test_an_interrupt_that_was_handled_does_not_end_the_process(tmp_path: Path, number: signal.Signals) -> None:
    """It comes beneath `eval`, where imports are when they make a class."""
    program = f"""
import os, sys
from assay.signals import handled_by, interrupt
try:
    with handled_by(interrupt):
        eval("os.kill(os.getpid(), {int(number)}) or sum(range(10**6))")
except KeyboardInterrupt:
    sys.exit(130)
"""
    (tmp_path / "program.py").write_text(program)
    assert subprocess.run([sys.executable, "-m", "program"], cwd=tmp_path).returncode == 130


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled_by(lambda *_: None):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_changes_nothing() -> None:
    seen: list[object] = []

    def body() -> None:
        with handled_by(signal.SIG_IGN):
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before]
