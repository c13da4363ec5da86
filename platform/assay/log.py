"""How everything below the command line speaks to the person at the terminal: a plain line at a time."""

from __future__ import annotations

from collections.abc import Callable

Log = Callable[[str], None]
"""Called with one plain line."""


def counted(number: int, what: str) -> str:
    """Such as `1 worker` or `2 workers`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
