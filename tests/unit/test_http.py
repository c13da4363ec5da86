"""One way to ask over HTTP: directly on this machine, with our own login, and no login handed to another server."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.http import NoAnswer, ask, basic_login, is_loopback, status_of


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked; `/away` leads to `/there`."""

    def do_GET(self) -> None:
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Location", "/there")
        self.end_headers()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        kind, login = self.headers.get("Content-Type"), self.headers.get("Authorization")
        self.wfile.write(json.dumps({"path": self.path, "body": body, "kind": kind, "login": login}).encode())

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A server on loopback, in an environment with a proxy that is down and a login of somebody else."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_request_arrives_past_any_proxy_with_our_own_login(url: str) -> None:
    login = basic_login("me", "s3cret")
    assert ask("GET", f"{url}/x", login).json() == {
        "path": "/x", "body": "", "kind": None, "login": login["Authorization"],
    }  # fmt: skip
    assert ask("GET", f"{url}/x").json()["login"] is None
    assert ask("POST", url, body={}).json()["body"] == "{}"
    assert ask("POST", url, body={"a": 1}).json()["kind"] == "application/json"
    assert ask("PUT", url, content=b"bytes").status == 501


def test_a_login_and_a_body_do_not_follow_a_redirect(url: str) -> None:
    assert ask("GET", f"{url}/away").json()["path"] == "/there"
    assert ask("GET", f"{url}/away", basic_login("me", "s3cret")).status == 302
    assert ask("POST", f"{url}/away", body={"secret": 1}).status == 302


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1", "http://[::1", "nonsense", "http://.a", "ftp://host", "http://me:s3cret@:80"]
)
def test_no_answer_is_told_in_a_few_words_without_the_address(address: str) -> None:
    with pytest.raises(NoAnswer) as caught:
        ask("GET", address, seconds=1)
    assert "s3cret" not in str(caught.value)
    assert len(str(caught.value)) < 30
    assert status_of(address, seconds=1) is None


def test_loopback_is_what_leads_to_this_machine() -> None:
    for address in ("http://127.0.0.1:1", "http://localhost/x", "http://[::1]:8", "http://127.8.9.1"):
        assert is_loopback(address)
    for address in ("http://localhost.example.org", "http://127.example.org", "http://10.0.0.1", "http://[::1"):
        assert not is_loopback(address)
