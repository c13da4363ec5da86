"""Searches that Optuna really ran, over a cheap function with mixed and conditional parameters."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np

from assay.report.search import SearchSnapshot, TrialRow

EPOCHS = 16
BLOCKS = [[1, 1], [1, 2], [2, 2, 2], [1, 1, 2, 2, 4, 4]]
PARAMETERS: dict[str, dict[str, Any]] = {
    "optimizer.name": {"choices": ["adamw", "sgd"]},
    "optimizer.lr": {"low": 1e-5, "high": 1.0, "log": True},
    "optimizer.momentum": {"low": 0.0, "high": 0.99, "log": False},  # counts with sgd
    "train.batch_size": {"choices": [16, 32, 64, 128]},
    "task.width": {"low": 4, "high": 256, "log": True},
    "task.blocks": {"choices": BLOCKS},
    "task.dropout": {"low": 0.0, "high": 0.5, "log": False},
    "data.flip": {"choices": [True, False]},
}
OBJECTIVES = {"val/accuracy": "max", "cost/parameters": "min", "cost/latency_ms": "min"}


def values_of(trial: Any, more: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, given in (PARAMETERS | extra(more)).items():
        if key == "optimizer.momentum" and values["optimizer.name"] != "sgd":
            continue
        if "choices" in given:
            values[key] = given["choices"][trial.suggest_categorical(key, range(len(given["choices"])))]
        elif isinstance(given["low"], int):
            values[key] = trial.suggest_int(key, given["low"], given["high"], log=given["log"])
        else:
            values[key] = trial.suggest_float(key, given["low"], given["high"], log=given["log"])
    return values


def extra(more: int) -> dict[str, dict[str, Any]]:
    kinds: list[dict[str, Any]] = [
        {"choices": [1, 3, 5, 7]},
        {"choices": ["batch_norm", "group_norm", "none"]},
        {"low": 1, "high": 6, "log": False},
    ]
    names = ("kernel", "normalisation", "depth")
    return {f"task.stages.{i // 3}.{names[i % 3]}": kinds[i % 3] for i in range(more)}


def accuracy(values: dict[str, Any], epoch: int) -> float:
    score = 1.2 - 0.35 * (math.log10(values["optimizer.lr"]) + 2.5) ** 2 - 0.5 * values["task.dropout"] ** 2
    score += 0.3 * math.log10(values["task.width"]) - 0.8 * (values.get("optimizer.momentum", 0.8) - 0.9) ** 2
    return 0.1 + 0.89 / (1 + math.exp(-2 * score)) * (1 - 0.7 * math.exp(-epoch / 3))


def optuna_search(
    trials: int = 40,
    objectives: int = 1,
    sampler: str = "tpe",
    stops: bool = False,
    more: int = 0,
    failing: float = 0.08,
    seed: int = 0,
) -> SearchSnapshot:
    import optuna

    logging.getLogger("optuna").setLevel(logging.ERROR)
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    pruner = optuna.pruners.SuccessiveHalvingPruner(1, 4) if stops else optuna.pruners.NopPruner()
    study = optuna.create_study(direction="maximize", sampler=samplers[sampler](), pruner=pruner)
    random = np.random.default_rng(seed)
    rows = []
    for number in range(trials):
        trial = study.ask()
        values = values_of(trial, more)
        costs = {"cost/parameters": float(9 * values["task.width"] ** 2 * sum(values["task.blocks"]))}
        costs["cost/latency_ms"] = 0.1 * sum(values["task.blocks"]) + costs["cost/parameters"] / 4e5
        if random.random() < failing:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            rows.append(TrialRow(number, "failed", values, {}, [], 1.0, 0, "train/loss is nan at step 12"))
            continue
        curve, status = [], "finished"
        for epoch in range(1, EPOCHS + 1):
            curve.append((epoch, accuracy(values, epoch) + random.normal() * 0.004))
            trial.report(curve[-1][1], epoch)
            if stops and trial.should_prune():
                status = "stopped"
                break
        study.tell(trial, curve[-1][1])
        metrics = {"val/accuracy": curve[-1][1], **costs}
        rows.append(TrialRow(number, status, values, metrics, curve, 2.0 * len(curve), len(curve), run_id=f"r{number}"))
    return SearchSnapshot(
        "digits-hpo",
        "s-20261121",
        "digits",
        sampler,
        "asha" if stops else None,
        dict(list(OBJECTIVES.items())[:objectives]),
        PARAMETERS | extra(more),
        rows,
        {"budget": f"{trials} trials", "total": str(trials), "dataset": "digits 3f2a", "commit": "39e8578"},
        {"val/accuracy": 0.93, "cost/parameters": 6e4, "cost/latency_ms": 0.9},
    )


def population(members: int = 6, generations: int = 8, seed: int = 0) -> SearchSnapshot:
    """Population-based training: the worst two continue from the best two, with changed values."""
    random = np.random.default_rng(seed)
    start = optuna_search(members, sampler="random", failing=0, seed=seed)
    alive = [replace(row, curve=row.curve[:2], epochs=2) for row in start.trials]
    rows = list(alive)
    for generation in range(1, generations):
        order = sorted(alive, key=lambda row: row.metrics["val/accuracy"])
        copied = {order[0].number: order[-1], order[1].number: order[-2]}
        alive = []
        for member in range(members):
            before = rows[(generation - 1) * members + member]
            parent, values = copied.get(before.number, before), dict(before.values)
            if before.number in copied:
                values = {
                    **parent.values,
                    "optimizer.lr": parent.values["optimizer.lr"] * float(random.choice([0.8, 1.2])),
                }
            now = accuracy(values, 2 * generation + 2) + random.normal() * 0.01
            number = generation * members + member
            curve = [(2 * generation + 1, now - 0.02), (2 * generation + 2, now)]
            alive.append(
                TrialRow(number, "finished", values, {"val/accuracy": now}, curve, 4.0, 2, parent=parent.number)
            )
        rows += alive
    return replace(start, name="digits-pbt", algorithm="pbt", trials=rows, details={})
