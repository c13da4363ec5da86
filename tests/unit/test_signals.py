"""Signal handlers last as long as their block, in the main thread only."""

from __future__ import annotations

import os
import signal
import threading

from assay.signals import handled_by


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
