"""Seconds from a command to its end where nothing runs before: help, and a short training with and without Ray.

`python -m benchmarks startup OTHER` also measures another checkout's code, in turns with this one's and before it, and
prints how much faster this one is.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.common import REPOSITORY, figure, fresh_clone, run, spread

PROGRAM = "import sys; sys.argv[0] = 'assay'; from assay.cli.main import main; main()"  # older code is no `-m assay`
SHORT = ("train", "digits", "--set", "train.epochs=1", "--new", "--workers")
COMMANDS = {
    "assay --help": (("--help",), 11),
    "assay train of one epoch without Ray": ((*SHORT, "0"), 6),
    "assay train of one epoch on one worker": ((*SHORT, "1"), 6),
}
"""The command, and how often it is run; the first time, which fills the disk's cache, does not count."""


def main(other: str = "") -> None:
    codes = [Path(other).resolve(), REPOSITORY] if other else [REPOSITORY]
    with fresh_clone() as project:
        run(project, "dvc", "repro", "-q", "data@digits")
        for name, (words, times) in COMMANDS.items():
            found: dict[Path, list[float]] = {code: [] for code in codes}
            for _ in range(times):
                for code in codes:
                    found[code].append(seconds(project, code, words))
            kept = {code: values[1:] for code, values in found.items()}
            figure(f"{name}, seconds", **spread(kept[REPOSITORY]))
            if other:
                before = kept[codes[0]]
                figure(f"{name}, seconds, the other code", **spread(before))
                pairs = zip(before, kept[REPOSITORY], strict=True)
                figure(f"{name}, times faster than the other code", **spread([old / new for old, new in pairs]))


def seconds(project: Path, code: Path, words: tuple[str, ...]) -> float:
    started = time.monotonic()
    run(project, sys.executable, "-c", PROGRAM, *words, code=code)
    return time.monotonic() - started


if __name__ == "__main__":
    main(*sys.argv[1:])
