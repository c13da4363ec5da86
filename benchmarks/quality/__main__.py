"""`python -m benchmarks.quality [NAME [ARGUMENTS]]`: those that need no argument, or the named one."""

from __future__ import annotations

from benchmarks.common import measure

if __name__ == "__main__":
    measure("benchmarks.quality")
