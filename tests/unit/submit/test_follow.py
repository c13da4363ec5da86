"""A job's log is shown once, line by line, however it arrives; its last line is for the program."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.server import ServerConnection, serve

from assay.submit.follow import END, JobLog
from assay.submit.ray_jobs import Cluster

LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8), max_size=12)


@given(lines=LINES, cuts=st.lists(st.integers(0, 120), max_size=8), whole=st.booleans())
def test_each_line_is_given_out_once(lines: list[str], cuts: list[int], whole: bool) -> None:
    text = "\n".join(lines) + ("\n" if whole and lines else "")
    log, shown, at = JobLog(), [], 0
    for size in cuts:  # it may come in parts of any size
        shown += list(log.more(text[at : at + size]))
        at = min(at + size, len(text))
    shown += list(log.rest(text))
    assert shown == text.splitlines()


def test_a_log_that_cannot_be_read_at_the_end_is_what_was_read_before() -> None:
    log = JobLog()
    assert list(log.more("one\ntwo\nthr")) == ["one", "two"]
    assert list(log.rest("")) == ["thr"]


def test_the_last_line_is_taken_out() -> None:
    told = {"exit_code": 2, "result": None, "error": None}
    log = JobLog()
    text = f"step 1\nerror: wrong\n{END}{json.dumps(told)}\n"
    assert list(log.rest(text)) == ["step 1", "error: wrong"]
    assert log.final_report() == {**told, "error": {"message": "wrong"}}
    cut = JobLog()
    assert list(cut.more(text[:-20])) == ["step 1", "error: wrong"]
    assert cut.final_report() == {"error": {"message": "wrong"}}


@pytest.fixture
def served() -> Iterator[tuple[str, list[str], list[int]]]:
    """A server of a log, as the cluster's: each connection gets it from its beginning; how much each has got."""
    written: list[str] = []
    sent: list[int] = []

    def serve_one(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/api/jobs/j/logs/tail"
        number, given = len(sent), 0
        sent.append(0)
        while True:
            for part in written[given:]:
                if part == "cut" and number == written[: given + 1].count("cut") - 1:
                    connection.close()
                    return
                if part != "cut":
                    connection.send(part)
                    sent[number] += len(part)
                given += 1
            with suppress(TimeoutError):
                connection.recv(timeout=0.01)

    with serve(serve_one, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}", written, sent
        server.shutdown()


def test_a_log_is_read_on_from_where_it_was_and_again_only_over_a_new_connection(
    served: tuple[str, list[str], list[int]],
) -> None:
    address, written, sent = served
    stream = Cluster(address).log_stream("j")
    total = ""

    def read(upto: str) -> None:
        nonlocal total
        limit = time.monotonic() + 20
        while total != upto:
            assert time.monotonic() < limit, total
            total += stream.more(0.2)

    whole = ""
    for number in range(30):
        written.append(f"line {number}\nand a half of")
        whole += written[-1]
        read(whole)
    assert sent == [len(whole)]
    written.append("cut")
    written.append(" the next\n")
    whole += written[-1]
    read(whole)
    assert sent == [len(whole) - len(written[-1]), len(whole)]
    stream.close()


def test_nothing_comes_of_a_server_that_is_away() -> None:
    stream = Cluster("http://127.0.0.1:9").log_stream("j")
    assert stream.more(0.2) == ""
    assert stream.more(0.2) == ""
