"""`python -m benchmarks.flows [NAME …]`: all measurements of flows, or the named one."""

from __future__ import annotations

from benchmarks.common import measure

if __name__ == "__main__":
    measure("benchmarks.flows")
