"""Signal handlers last as long as their block, in the main thread only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from assay.signals import STOPPING, ask_to_end, asked_to_end, handled_by


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
from assay.signals import interruptible
try:
    with interruptible():
        eval("os.kill(os.getpid(), {int(number)}) or sum(range(10**6))")
except KeyboardInterrupt:
    sys.exit(130)
"""
    (tmp_path / "program.py").write_text(program)
    assert subprocess.run([sys.executable, "-m", "program"], cwd=tmp_path).returncode == 130


LOSES = """
import os, signal, sys, time, weakref
from assay.signals import Signalled, handled_by, interruptible
def ask(*_):
    os.kill(os.getpid(), signal.{name})
    sum(range(10**6))
class Module: pass
def lose():
    module = Module()
    kept = weakref.ref(module, ask)
    del module
try:
    with interruptible():
        {body}
except KeyboardInterrupt:
    print("ended")
    signal.sigtimedwait([signal.SIGALRM], 1.5)
    print("and stays so")
"""
"""A program in which what a signal raises gets lost, as it does in the middle of an import."""


@pytest.mark.parametrize("number", STOPPING)
def test_what_gets_lost_is_raised_again(tmp_path: Path, number: signal.Signals) -> None:
    done = lost(tmp_path, number, "lose(); time.sleep(60); print('goes on')")
    assert done == ["ended", "and stays so"]


def test_who_takes_signals_over_hears_of_one_that_got_lost(tmp_path: Path) -> None:
    assert lost(tmp_path, signal.SIGINT, "lose()\n        with handled_by(print): print('goes on')")[0] == "ended"


def test_clearing_up_is_not_interrupted_again(tmp_path: Path) -> None:
    body = """
        try:
            ask()
        finally:
            try:
                {}["nothing"]
            except KeyError:
                time.sleep(1.5)
            with handled_by(signal.SIG_IGN):
                print("cleared")
"""
    assert lost(tmp_path, signal.SIGINT, body) == ["cleared", "ended", "and stays so"]


def lost(folder: Path, number: signal.Signals, body: str) -> list[str]:
    (folder / "program.py").write_text(LOSES.format(name=number.name, body=body))
    done = subprocess.run([sys.executable, "-m", "program"], cwd=folder, capture_output=True, text=True, timeout=30)
    return done.stdout.splitlines()


PROMISES = """
import os, signal, sys
from pathlib import Path
from assay.signals import asked_to_end, interruptible
from assay.workers.launch import stopping_on_signals
with interruptible():
    try:
        with stopping_on_signals(Path(), print):
            os.kill(os.getpid(), signal.SIGINT)
        print("saved", asked_to_end(), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        print("not at once", flush=True)
"""


def test_the_second_signal_ends_at_once_also_after_the_block_that_heard_the_first(tmp_path: Path) -> None:
    """What follows a training that was asked to save makes calls of the tracking store, which may take long."""
    (tmp_path / "program.py").write_text(PROMISES)
    done = subprocess.run([sys.executable, "-m", "program"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 130
    assert done.stdout.splitlines()[-1] == "saved True"


def test_a_request_to_end_is_forgotten_with_the_outermost_block() -> None:
    with handled_by(lambda *_: ask_to_end()):
        os.kill(os.getpid(), signal.SIGINT)
        assert asked_to_end()
    assert not asked_to_end()


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
