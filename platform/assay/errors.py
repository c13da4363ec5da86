"""The kinds of failure that a user sees, and nothing else.

Everything else that escapes is a defect of Assay and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterator


class AssayError(Exception):
    """A failure with a message for the user: what is wrong, where, and how to fix it."""

    exit_code = 1


class InputError(AssayError):
    """The input is wrong (a key, a file, a flag, the environment): nothing was started. Exit code 2."""

    exit_code = 2


class WorkError(AssayError):
    """The input was fine and the work failed (a diverged loss, a dead worker, a closed gate). Exit code 1."""

    exit_code = 1


class Interrupted(AssayError):
    """Stopped by a signal, and saved; the same command continues it. Exit code 130."""

    exit_code = 130


class Unavailable(WorkError):
    """A server, a cluster or a remote does not answer now. Trying again can help."""


def last_line(error: BaseException | str) -> str:
    """The last line of an error or a server's message: of a library's long text, usually the cause."""
    unnamed = "no reason given" if isinstance(error, str) else type(error).__name__
    lines = [line for line in str(error).splitlines() if line.strip()] or [unnamed]
    return lines[-1].strip()[:300]


def causes(error: BaseException | None, implied: bool = False) -> Iterator[BaseException]:
    """An error and those it was raised from; with `implied`, also those that were being handled at that time."""
    while error is not None:
        yield error
        error = error.__cause__ or (error.__context__ if implied else None)


def known(kind: str, name: str, names: list[str]) -> str:
    """One line for an unknown name: the nearest known one, and all known ones."""
    import difflib

    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(sorted(names)) or 'none'}."
