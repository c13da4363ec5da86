"""What the measurements share: a fresh clone to work in, the program's JSON, a figure's line."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def measure(package: str) -> None:
    """Run the measurements of a package: the one that the command line names, else all that need no argument."""
    folder = str(REPOSITORY / package.replace(".", "/"))
    known = sorted(m.name for m in pkgutil.iter_modules([folder]) if m.name != "__main__" and not m.ispkg)
    chosen, arguments = sys.argv[1:2], sys.argv[2:]
    if chosen and chosen[0] not in known:
        sys.exit(f"unknown measurement {chosen[0]}. Known: {', '.join(known)}")
    for name in chosen or known:
        run_one = importlib.import_module(f"{package}.{name}").main
        needs = [p for p in inspect.signature(run_one).parameters.values() if p.default is p.empty]
        if chosen or all(p.kind is p.VAR_POSITIONAL for p in needs):
            run_one(*arguments)


def figure(name: str, **values: Any) -> None:
    """Print one figure."""
    print(json.dumps({"figure": name, **values}), flush=True)


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, minimum and maximum."""
    shown = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in shown.items()}


@contextmanager
def fresh_clone() -> Iterator[Path]:
    """A clone of the committed state, with nothing in it yet."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
        clone = Path(folder) / "p"
        subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(clone)], check=True)
        yield clone


def environment(clone: Path) -> dict[str, str]:
    """The environment of programs that run in a clone, on the clone's code."""
    code = os.pathsep.join((str(clone / "platform"), str(clone)))
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": code}


def run(clone: Path, *command: str, code: Path | None = None) -> str:
    """Run a program to its end, on the clone's code or that of another checkout; its standard output."""
    done = subprocess.run(command, cwd=clone, env=environment(code or clone), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def assay(clone: Path, *arguments: str) -> dict[str, Any]:
    """A verb's JSON object."""
    result: dict[str, Any] = json.loads(run(clone, str(BIN / "assay"), *arguments, "--json"))
    return result


def assign(*assignments: str) -> list[str]:
    """`--set` arguments."""
    return [word for assignment in assignments for word in ("--set", assignment)]


def set_value(clone: Path, key: str, value: Any) -> None:
    """Change one value of the clone's params.yaml."""
    from ruamel.yaml import YAML

    yaml, path = YAML(), clone / "params.yaml"
    data = yaml.load(path)
    *parents, leaf = key.split(".")
    node = data
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    yaml.dump(data, path)


def trained(
    clone: Path, experiment: str, *assignments: str, preset: str | None = None
) -> tuple[dict[str, float], float]:
    """Train and evaluate: (test metrics, seconds of training, starting the workers included)."""
    from assay.config.params import load_params

    run(clone, "dvc", "repro", "-q", f"data@{load_params(clone / 'params.yaml').experiment(experiment).data}")
    chosen = ["--preset", preset] if preset else []
    record = assay(clone, "train", experiment, *chosen, *assign(*assignments))
    return assay(clone, "evaluate", record["run_id"])["metrics"], record["seconds"]
