"""How everything below the command line speaks to the person at the terminal: a plain line at a time."""

from __future__ import annotations

from collections.abc import Callable

Log = Callable[[str], None]
"""Called with one plain line."""
