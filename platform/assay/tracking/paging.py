"""All that a search of MLflow finds: it gives out its answers in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def pages(search: Callable[..., Any], *arguments: Any, **named: Any) -> Iterator[Any]:
    """All that one of MLflow's searches finds, page after page."""
    token = None
    while True:
        page = search(*arguments, page_token=token, **named)
        yield from page
        token = page.token
        if not token:
            return
