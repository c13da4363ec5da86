"""`python -m benchmarks.search [NAME [ARGUMENTS]]`: all of them, or the named one."""

from __future__ import annotations

from benchmarks.common import measure

if __name__ == "__main__":
    measure("benchmarks.search")
