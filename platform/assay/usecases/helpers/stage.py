"""What a verb owes to DVC when `dvc repro` runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from assay.errors import WorkError


def runs_as_stage() -> bool:
    """Whether DVC runs this process. It records what a stage follows from as it is when the stage ends."""
    return "DVC_STAGE" in os.environ


@contextmanager
def unchanged(what: str, read: Callable[[], Any]) -> Iterator[None]:
    """Let a stage end well only if what it follows from is the same at the end as it was at the beginning.

    Raises:
        WorkError: it was changed meanwhile, so DVC would record the outputs with inputs that they are not from.
    """
    if not runs_as_stage():
        yield
        return
    before = read()
    yield
    if read() != before:
        raise changed(what)


def changed(what: str) -> WorkError:
    return WorkError(f"{what} changed meanwhile: what was made is recorded as it was; give the same command again")
