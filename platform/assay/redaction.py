"""Takes secrets out of text: what looks like one, what this process knows to be one, and logins in addresses.

Known are the values of environment variables whose names say so, and passwords inside addresses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

REDACTED = "[redacted]"
SHORTEST = 8
"""Shorter values of variables are taken for words, not for secrets."""

_LOOKS = re.compile(
    r"(?i)((?:password|passwd|secret|token|api_?key|access_key)\w*[\"']?\s*[:=]\s*[\"']?)([^\s\"']{6,})"
)
_PASSWORD = re.compile(r"(://[^\s:/@]*:)([^\s/@]+(?:@[^\s/@\"']+)*)@")
_WITH_LOGIN = re.compile(r"[^\s\"']+@[^\s\"']*")
_QUERY = re.compile(r"(?<=\S)\?\S+")
_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|KEY|AUTH_STRING|WEBHOOK|CREDENTIAL")
_NO_SECRET = ("_PATH", "_FILE", "_DIR", "_ID")  # places and names


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text without the secrets of `environment` (this process's own), and without what looks like one."""
    text = without(text, secrets_of(os.environ if environment is None else environment))
    return _PASSWORD.sub(rf"\1{REDACTED}@", _LOOKS.sub(rf"\1{REDACTED}", text))


def hide_login(address: str) -> str:
    """One address without its user, its password and its options: for people, and for links."""
    scheme, mark, rest = address.partition("://") if "://" in address else ("", "", address)
    if rest.startswith("/"):  # a file's, where an @ is part of a name
        return address.partition("?")[0]
    return f"{scheme}{mark}{_place(rest)}"


def hide_logins(text: str) -> str:
    """A library's message without users, passwords and options, also of addresses that were cut at the wrong place."""
    return _QUERY.sub("", _WITH_LOGIN.sub(lambda found: f"…@{_place(found[0])}", text))


def _place(address: str) -> str:
    """The part between login and options; `…` if the two cannot be distinguished."""
    place, _, options = address.partition("?")
    return "…" if "@" in options else place.rpartition("@")[2]


def without(text: str, secrets: Iterable[str]) -> str:
    """The text without these values."""
    for value in secrets:
        text = text.replace(value, REDACTED)
    return text


def redact_known(data: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Plain data without the known secrets. What merely looks like a secret stays: it may be a setting."""
    known = secrets_of(os.environ if environment is None else environment)

    def clean(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {clean(key): clean(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return [clean(value) for value in node]
        return without(node, known) if isinstance(node, str) else node

    return clean(data)


def secrets_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The secrets of an environment: the name of the variable by value, longest values first."""
    found: dict[str, str] = {}
    for name, value in environment.items():
        if _NAME.search(name.upper()) and not name.upper().endswith(_NO_SECRET):
            found[value] = name
            if ":" in value and "://" not in value:  # user:password
                found[value.split(":", 1)[1]] = name
        for _, password in _PASSWORD.findall(value):
            found |= {password: name, unquote(password): name}
    token = environment.get("RAY_AUTH_TOKEN_PATH")
    if token and Path(token).is_file():
        found[Path(token).read_text().strip()] = "RAY_AUTH_TOKEN_PATH"
    kept = {value: name for value, name in found.items() if len(value) >= SHORTEST}
    return dict(sorted(kept.items(), key=lambda item: -len(item[0])))
