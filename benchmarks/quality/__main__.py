"""`python -m benchmarks.quality [NAME [ARGUMENTS]]`: those that need no argument, or the named one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path


def main() -> None:
    here = [str(Path(__file__).parent)]
    known = sorted(m.name for m in pkgutil.iter_modules(here) if m.name != "__main__" and not m.ispkg)
    chosen, arguments = sys.argv[1:2], sys.argv[2:]
    if chosen and chosen[0] not in known:
        sys.exit(f"unknown measurement {chosen[0]}. Known: {', '.join(known)}")
    for name in chosen or known:
        run = importlib.import_module(f"benchmarks.quality.{name}").main
        if chosen or not inspect.signature(run).parameters:
            run(*arguments)


if __name__ == "__main__":
    main()
