"""Searches without training: a function stands for it, and trials end in any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from assay.config.experiment import ExperimentConfig
from assay.config.params import load_params
from assay.config.search import ParameterConfig, SearchConfig
from assay.tune.journal import Journal
from assay.tune.search import Search, Trial
from assay.tune.space import Space

EXPERIMENT: ExperimentConfig = load_params(Path(__file__).parents[2] / "params.yaml").experiment("digits")
MIXED = {
    "kind": {"choice": ["a", "b", "c"]},
    "size": {"integer": [1, 30]},
    "rate": {"loguniform": [1e-4, 1e-1]},
    "steps": {"loginteger": [1, 5000]},
    "decay": {"uniform": [0.0, 1.0], "step": 0.25},
    "deep": {"choice": [1, 2, 4], "when": {"kind": ["b", "c"]}},
    "wide": {"uniform": [-1.0, 1.0], "when": {"deep": [2, 4]}},
}
COUNTED = {key: MIXED[key] for key in ("kind", "size", "decay", "deep")}
TABLE = {f"op{i}": {"choice": ["a", "b", "c", "d"]} for i in range(5)}


def space(plain: Mapping[str, Any], origin: str = "space") -> Space:
    return Space({key: ParameterConfig.model_validate(value) for key, value in plain.items()}, origin)


def config(algorithm: str, plain: Mapping[str, Any], **more: Any) -> SearchConfig:
    whole = {"experiment": "digits", "algorithm": algorithm, "space": dict(plain), "budget": {"trials": 1000}, **more}
    return SearchConfig.model_validate({"objectives": {"val/accuracy": "max"}, **whole})


def search(chosen: SearchConfig, epochs: int = 30, journal: Journal | None = None) -> Search:
    experiment = EXPERIMENT.model_copy(update={"train": EXPERIMENT.train.model_copy(update={"epochs": epochs})})
    return Search(chosen, Space(chosen.space), experiment, journal)


def score(values: Mapping[str, Any]) -> float:
    """Separable; the best of `TABLE` is d everywhere."""
    total = 0.0
    for place, value in enumerate(values.values()):
        number = float(value) if isinstance(value, (int, float)) else "abcdxy".index(value)
        total += (place + 1) * np.log1p(abs(number))
    return float(total)


def drive(
    running: Search,
    steps: int,
    order: int = 0,
    parallel: int = 2,
    value: Callable[[Trial], Mapping[str, float]] | None = None,
) -> list[Trial]:
    """End so many trials, `parallel` at a time, in the random order of a seed; one in eight fails."""
    random, ended = np.random.default_rng(order), []
    for _ in range(steps):
        while len(running.running) < parallel and running.next() is not None:
            pass
        if not running.running:
            break
        trial = running.running[int(random.integers(len(running.running)))]
        if random.random() < 1 / 8:
            running.end(trial.number, "failed", reason="bad luck")
        else:
            metrics = value(trial) if value else {name: score(trial.values) for name in running.objectives}
            running.end(trial.number, "finished", metrics)
        ended.append(trial)
    return ended
