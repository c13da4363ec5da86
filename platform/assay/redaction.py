"""Takes secrets out of what is written down: what looks like one, and what this process knows to be one.

Known are the values of environment variables whose names say so, and passwords inside addresses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

TAKEN_OUT = "[redacted]"
SHORTEST = 8
"""Shorter values of variables are taken for words, not for secrets."""

_LOOKS = re.compile(
    r"(?i)((?:password|passwd|secret|token|api_?key|access_key)\w*[\"']?\s*[:=]\s*[\"']?)([^\s\"']{6,})"
)
_IN_ADDRESS = re.compile(r"(://[^\s:/@]*:)([^\s/@]+)@")
_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|KEY|AUTH_STRING|WEBHOOK|CREDENTIAL")
_NO_SECRET = ("_PATH", "_FILE", "_DIR", "_ID")  # places and names


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text without the secrets of `environment` (this process's own), and without what looks like one."""
    text = without(text, secrets_of(os.environ if environment is None else environment))
    return _IN_ADDRESS.sub(rf"\1{TAKEN_OUT}@", _LOOKS.sub(rf"\1{TAKEN_OUT}", text))


def without(text: str, secrets: Iterable[str]) -> str:
    """The text without these values."""
    for value in secrets:
        text = text.replace(value, TAKEN_OUT)
    return text


def redact_known(data: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Plain data whose texts hold none of the known secrets. What merely looks like one stays: it may be a setting."""
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
        for _, password in _IN_ADDRESS.findall(value):
            found |= {password: name, unquote(password): name}
    token = environment.get("RAY_AUTH_TOKEN_PATH")
    if token and Path(token).is_file():
        found[Path(token).read_text().strip()] = "RAY_AUTH_TOKEN_PATH"
    kept = {value: name for value, name in found.items() if len(value) >= SHORTEST}
    return dict(sorted(kept.items(), key=lambda item: -len(item[0])))
