"""Seconds until `assay --help` has answered."""

from __future__ import annotations

import time

from benchmarks.common import BIN, REPOSITORY, figure, run, spread


def main() -> None:
    found = []
    for _ in range(11):
        started = time.monotonic()
        run(REPOSITORY, str(BIN / "assay"), "--help")
        found.append(time.monotonic() - started)
    figure("assay --help, seconds", **spread(found[1:]))


if __name__ == "__main__":
    main()
