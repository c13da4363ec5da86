"""Plain HTTP requests: never without a time limit, never through a proxy to this machine.

Redirects are followed only by a GET without headers: no login and no body reaches another server.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from requests import PreparedRequest
    from requests.adapters import HTTPAdapter

SECONDS = 3.0


class NoAnswer(Exception):
    """Nothing answered; the message is the reason in a few words, without the address."""


@dataclass(frozen=True)
class Answer:
    """What a server answered, whatever its status."""

    status: int
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """The decoded body. Raises `ValueError` if it is not JSON."""
        return json.loads(self.content)


def ask(
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    body: Any = None,
    seconds: float = SECONDS,
) -> Answer:
    """Send one request.

    Args:
        content: bytes to send.
        body: plain data to send as JSON instead.
        seconds: the longest wait for the connection, and for each piece of the answer.

    Raises:
        NoAnswer: nothing answered in time, or the address is not one.
    """
    import requests

    try:
        reply = requests.request(
            method,
            url,
            headers=dict(headers or {}),
            data=content,
            json=body,
            timeout=seconds,
            auth=_no_login,
            proxies=_proxies(url),
            allow_redirects=method == "GET" and not headers,
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise NoAnswer(_reason(error)) from None
    return Answer(reply.status_code, reply.content)


def stream(url: str, headers: Mapping[str, str], seconds: float = SECONDS) -> Iterator[bytes]:
    """The chunks of an answer without an end, as they come, for as long as the other side is there.

    Args:
        seconds: the longest wait for the connection. A silent one is probed, and given up after a minute.

    Raises:
        NoAnswer: nothing answered, or not with success, or the connection ended.
    """
    import requests

    with requests.Session() as session:
        session.mount(url, _probing_adapter())
        try:
            with session.get(
                url, headers=dict(headers), timeout=(seconds, None), auth=_no_login, proxies=_proxies(url),
                allow_redirects=False, stream=True,
            ) as reply:  # fmt: skip
                if reply.status_code == 200:
                    yield from reply.iter_content(None)
        except (requests.RequestException, OSError, ValueError) as error:
            raise NoAnswer(_reason(error)) from None
    raise NoAnswer(f"HTTP {reply.status_code}")


def _probing_adapter() -> HTTPAdapter:
    """Connections that the system probes when they are silent, so that one whose other side is gone ends."""
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection

    probes = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # macOS has other names
            probes.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    adapter = HTTPAdapter()
    adapter.init_poolmanager(1, 1, socket_options=[*HTTPConnection.default_socket_options, *probes])
    return adapter


def _proxies(url: str) -> dict[str, str] | None:
    return dict.fromkeys(("http", "https", "all"), "") if is_loopback(url) else None


def status_of(url: str, headers: Mapping[str, str] | None = None, seconds: float = SECONDS) -> int | None:
    """The status of a GET; None if nothing answers."""
    try:
        return ask("GET", url, headers, seconds=seconds).status
    except NoAnswer:
        return None


def basic_login(user: str, password: str) -> dict[str, str]:
    """The header with a user and a password."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own: `localhost`, 127.0.0.0/8 or ::1."""
    with suppress(ValueError):
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    return False


def _no_login(request: PreparedRequest) -> PreparedRequest:
    """Keeps `requests` from replacing our login by one from ~/.netrc."""
    return request


def _reason(error: Exception) -> str:
    text = str(error)
    for words in ("Connection refused", "Name or service not known", "No route to host", "Network is unreachable"):
        if words in text:
            return words
    if "timed out" in text.lower():
        return "it takes too long"
    cut = "Connection aborted" in text or "reset" in text
    return "the connection was cut" if cut else type(error).__name__
