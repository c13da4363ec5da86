"""`python -m benchmarks [NAME …]`: all of them, or the named ones."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

HIDDEN = {
    "__main__",
    "common",
    "in_process",
    "bare_digits",
    "quality",
    "search",
    "flows",
    "cluster",
    "services",
    "chaos",
}


def main() -> None:
    known = sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name not in HIDDEN)
    names = sys.argv[1:] or known
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"unknown benchmark {', '.join(unknown)}. Known: {', '.join(known)}")
    for name in names:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
