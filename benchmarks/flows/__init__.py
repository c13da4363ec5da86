"""What the flows are measured to do: cancelled, eight at once, scheduled through deaths, and what Prefect costs.

Here is what the measurements share: a clone with the digits alone in a short training, a server and a worker for it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import BIN, environment, fresh_clone, set_value
from tests.conftest import keep_experiment
from tests.support.flows import Site, site


@contextmanager
def small_clone(**values: Any) -> Iterator[Path]:
    """A clone whose params.yaml has the digits alone, with the values of dotted keys replaced (`__` for a dot)."""
    with fresh_clone() as clone:
        keep_experiment(clone / "params.yaml", "digits")
        for key, value in {"train__workers": 0, "train__epochs": 1, **values}.items():
            set_value(clone, f"experiments.digits.{key.replace('__', '.')}", value)
        set_value(clone, "experiments.digits.gate", {"min": {"test/accuracy": 0.1}})
        yield clone


@contextmanager
def served(clone: Path, schedules: dict[str, Any]) -> Iterator[Site]:
    """The clone with a server, a worker and applied schedules."""
    set_value(clone, "schedules", schedules)
    with site(clone, environment(clone)) as services:
        schedule(services, "apply")
        yield services


def schedule(services: Site, *words: str) -> dict[str, Any]:
    """An `assay schedule` verb's JSON object."""
    command = [str(BIN / "assay"), "schedule", *words, "--json"]
    done = subprocess.run(command, cwd=services.root, env=services.environment, capture_output=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result
