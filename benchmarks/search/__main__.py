"""`python -m benchmarks.search [NAME [ARGUMENTS]]`: all of them, or the named one."""

from __future__ import annotations

import importlib
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
        importlib.import_module(f"benchmarks.search.{name}").main(*arguments)


if __name__ == "__main__":
    main()
