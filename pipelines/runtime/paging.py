"""Reads all that Prefect's server has of something: it answers 200 at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PAGE = 200
"""The most that the server answers at once, unless PREFECT_API_DEFAULT_LIMIT says otherwise."""


def every(read: Callable[..., list[Any]], **filters: Any) -> list[Any]:
    """All that a client's `read_…` method finds, page after page."""
    found: list[Any] = []
    while page := read(**filters, limit=PAGE, offset=len(found)):
        found += page
        if len(page) < PAGE:
            break
    return found
