"""A process stopped after each of its system calls while it replaces something: old or new, at every point.

A shim in C counts the calls that change files below a folder, and kills the process after one of them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.chaos.tools.operations import ALL, Replacement
from benchmarks.common import REPOSITORY, environment, figure

SOURCE = Path(__file__).with_name("tools") / "stop_after.c"


def main(every: str = "1") -> None:
    """Stop after each call, or after every so many."""
    if shutil.which("cc") is None:
        figure("chaos calls", skipped="there is no C compiler")
        return
    found = {}
    with _shim() as shim:
        for operation in ALL:
            found[operation.name] = _stopped_everywhere(operation, shim, int(every))
    faults = {name: result["faults"] for name, result in found.items() if result["faults"]}
    figure(
        "chaos calls", points=sum(result["points"] for result in found.values()), faults=faults,
        **{name: result["states"] for name, result in found.items()},
    )  # fmt: skip


@contextmanager
def _shim() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="assay-calls-") as folder:
        library = Path(folder) / "stop_after.so"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
        yield library


def _stopped_everywhere(operation: Replacement, shim: Path, every: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="assay-calls-") as name:
        old = Path(name) / "old"
        old.mkdir()
        operation.before(old)
        count = _run(operation, old, shim, None)[0]
        numbers = range(1, count + 1, every)
        states = [_run(operation, old, shim, number)[1] for number in numbers]
    faults = [f"after call {n} of {count}" for n, state in zip(numbers, states, strict=True) if state is None]
    seen = [state for state in states if state is not None]
    if seen != sorted(seen):
        faults.append(f"goes back: {seen}")
    return {"points": len(states), "faults": faults, "states": dict(Counter(str(state) for state in states))}


def _run(operation: Replacement, old: Path, shim: Path, stop: int | None) -> tuple[int, int | None]:
    """Replace a copy of the old state in a child that is stopped after a call; the calls, and the state found then."""
    folder, count = old.with_name("work"), old.with_name("count")
    shutil.copytree(old, folder)
    mode = {"STOP_COUNT": str(count)} if stop is None else {"STOP_AFTER": str(stop)}
    command = [sys.executable, "-m", "benchmarks.chaos.tools.operations", operation.change, str(folder)]
    variables = {"LD_PRELOAD": str(shim), "STOP_BELOW": str(folder), **mode}
    done = subprocess.run(
        command, env={**environment(REPOSITORY), **variables}, cwd=REPOSITORY, capture_output=True, text=True
    )
    if stop is None and done.returncode:
        sys.exit(f"{operation.name} fails undisturbed:\n{done.stderr[-2000:]}")
    state = operation.state(folder)
    shutil.rmtree(folder)
    return count.stat().st_size if count.exists() else 0, state
