"""Something that happens while a command is at work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def meanwhile(module: Any, name: str, work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something when a function of a use case is called, before it works."""
    real = getattr(module, name)

    def worked(*words: Any, **named: Any) -> Any:
        work()
        return real(*words, **named)

    monkeypatch.setattr(module, name, worked)
