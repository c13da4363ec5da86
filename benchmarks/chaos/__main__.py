"""`python -m benchmarks.chaos [NAME [ARGUMENTS]]`: all of it, or the named part. The first argument is how often.

Each part prints its seed; `CHAOS_SEED=N` repeats it.
"""

from __future__ import annotations

from benchmarks.common import measure

if __name__ == "__main__":
    measure("benchmarks.chaos")
