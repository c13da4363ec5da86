"""`assay search --candidates N`: networks of a search's space and what each costs, before any is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from assay.config import ExperimentConfig, located
from assay.errors import InputError
from assay.jobs.search_context import SearchContext
from assay.settings import Settings
from assay.task import load_task
from assay.train.randomness import key


def candidates(name: str, count: int, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """`count` random networks of a search's space, those over its limits named as such."""
    if count < 1:
        raise InputError(f"--candidates: must be 1 or more, not {count}")
    context = SearchContext.of(name, settings)
    found = []
    for number in range(count):
        random = np.random.default_rng(key(context.config.seed, "candidate", number))
        values = context.space.sample(random)
        costs = network_costs(context.space.apply(context.experiment, values), context)
        over = [metric for metric, most in context.config.limits.items() if costs[metric] > most]
        found.append({"config": values, "costs": costs, "over": over})
        say(f"{number + 1} of {count} networks built")
    return {"search": name, "candidates": found}


def network_costs(config: ExperimentConfig, context: SearchContext) -> dict[str, float]:
    """What the network of an experiment costs, as metrics `cost/…`, with fresh weights, on a CPU."""
    import torch

    from assay.networks.costs import task_costs
    from assay.train.context import LocalContext

    with tempfile.TemporaryDirectory() as folder:
        local = LocalContext(Path(folder), torch.device("cpu"), 1)
        local.fresh = False  # what it costs does not depend on its weights
        located_config = located(config, context.settings.root)
        return task_costs(load_task(config.task.name)[0].build(located_config, context.dataset, local)).metrics
