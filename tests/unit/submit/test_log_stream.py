"""The log of a job that goes on is sent once, and then what is added; a connection that is lost costs no line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from assay import http
from assay.errors import Unavailable
from assay.submit import follow
from assay.submit.follow import END, Follower
from assay.submit.log_stream import LogStream
from assay.submit.ray_jobs import JobInfo
from tests.support.servers import answering

LINES = [f"Schritt {number} …\r\n" for number in range(40)]
REPORT = f'{END}{{"exit_code": 0, "result": {{}}}}\n'


def test_an_answer_without_an_end_comes_in_pieces() -> None:
    further = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"3\r\none\r\n")
        further.wait(20)
        request.wfile.write(b"3\r\ntwo\r\n0\r\n\r\n")

    with answering(answer) as url:
        pieces = http.stream(url, {"Authorization": "Bearer t"})
        assert next(pieces) == b"one"
        further.set()
        assert next(pieces) == b"two"
        with pytest.raises(http.NoAnswer):
            next(pieces)


def test_a_refusal_and_a_closed_port_are_no_answer() -> None:
    with answering(lambda request: request.send_error(500)) as url, pytest.raises(http.NoAnswer, match="HTTP 500"):
        list(http.stream(url, {}))
    with pytest.raises(http.NoAnswer, match="Connection refused"):
        list(http.stream(url, {}))


class Cluster:
    """A job that writes a line a look. What it is asked for is counted; some connections are cut."""

    address = "http://head:8265"

    def __init__(self, cuts: int = 0, silent: bool = False) -> None:
        self.lines, self.whole, self.streams = 0, 0, 0
        self.cuts, self.silent = cuts, silent
        self.written = threading.Condition()

    @property
    def text(self) -> str:
        return "".join(LINES[: self.lines]) + (REPORT if self.lines == len(LINES) else "")

    def info(self, _: str) -> JobInfo:
        with self.written:
            self.lines = min(self.lines + 1, len(LINES))
            self.written.notify_all()
        return JobInfo("j", "train", "SUCCEEDED" if self.lines == len(LINES) else "RUNNING", 0.0, None, "", "", 0)

    def log(self, _: str) -> str:
        self.whole += 1
        return self.text.replace("\r\n", "\n")  # as Ray's does

    def follow_log(self, _: str) -> Iterator[bytes]:
        self.streams += 1
        if self.silent:
            raise Unavailable("HTTP 500")
        sent = 0
        with self.written:
            while sent < len(self.text.encode()):
                piece = self.text.encode()[sent : sent + 7]  # letters are cut too
                yield piece
                sent += len(piece)
                if self.cuts and sent > 30 * self.streams:
                    self.cuts -= 1
                    raise Unavailable("the connection was cut")
                if sent == len(self.text.encode()):
                    self.written.wait(5)


@pytest.mark.parametrize(("cuts", "silent"), [(0, False), (3, False), (0, True)])
def test_each_line_is_shown_once(monkeypatch: pytest.MonkeyPatch, cuts: int, silent: bool) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    cluster, shown = Cluster(cuts, silent), list[str]()
    Follower(cluster, "j", shown.append, lambda _: None).to_the_end()  # type: ignore[arg-type]
    assert shown == [line.strip() for line in LINES]
    if not cuts and not silent:
        assert (cluster.whole, cluster.streams) == (2, 1)  # at first, and when it has ended


def test_a_stream_ends_with_its_connection() -> None:
    def read() -> Iterator[bytes]:
        yield "é".encode()[:1]
        yield "é\r".encode()[1:]
        raise Unavailable("cut")

    stream = LogStream(read)
    stream._thread.join(10)
    assert not stream.open
    assert stream.text == "é"  # what follows the \r is not known
