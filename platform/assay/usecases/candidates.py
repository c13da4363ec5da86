"""`assay tune --candidates N`: random networks of a search's space and what each costs, without training any."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.errors import InputError
from assay.log import Log
from assay.settings import Settings
from assay.train.randomness import key
from assay.usecases.helpers.search_context import SearchContext, network_costs


def sample_candidates(name: str, count: int, settings: Settings, log: Log) -> dict[str, Any]:
    """`count` random networks of a search's space with their costs; `over` names the limits that a network exceeds.

    Raises:
        InputError: a count below 1, or anything wrong with the search.
    """
    if count < 1:
        raise InputError(f"--candidates: must be 1 or more, not {count}")
    context = SearchContext.of(name, settings)
    networks = []
    for number in range(count):
        random = np.random.default_rng(key(context.config.seed, "candidate", number))
        values = context.space.sample(random)
        costs = network_costs(context.space.apply(context.experiment, values), context)
        over = [metric for metric, most in context.config.limits.items() if costs[metric] > most]
        networks.append({"config": values, "costs": costs, "over": over})
        log(f"built {number + 1} of {count} networks")
    return {"search": name, "candidates": networks}
