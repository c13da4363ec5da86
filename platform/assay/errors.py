"""The kinds of failure that a user sees, and nothing else.

Everything else that escapes is a defect of Assay and keeps its traceback.
"""

from __future__ import annotations


class AssayError(Exception):
    """A failure with a message made for the user: what is wrong, where, and how to mend it."""

    exit_code = 1


class InputError(AssayError):
    """The input is wrong (a key, a file, a flag, the environment): nothing was started. Exit code 2."""

    exit_code = 2


class WorkError(AssayError):
    """The input was fine and the work failed (a diverged loss, a dead worker, a closed gate). Exit code 1."""

    exit_code = 1


class Interrupted(AssayError):
    """Stopped by a signal, saved, and to be continued by the same command. Exit code 130."""

    exit_code = 130


class Unavailable(WorkError):
    """Something that may be there again later does not answer: a server, a cluster, a remote. Trying again can help."""


def last_line(error: BaseException) -> str:
    """The last line of what an error says: of a library's long story, usually the cause."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].strip()[:200]


def known(kind: str, name: str, names: list[str]) -> str:
    """One line for an unknown name: the nearest known one, and all of them."""
    import difflib

    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(sorted(names)) or 'none'}."
