"""A trial as a block of its own: what differs is written, lists whole, and the block means what the trial was."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from assay.config.experiment import parse_experiment, replaced
from assay.config.search import SearchConfig
from assay.tune.space import bound
from assay.usecases.apply import trial_block

BLOCK: dict[str, Any] = {
    "task": {"name": "classification", "architecture": "small_cnn", "image_size": 8},
    "data": "digits",
    "optimizer": {"name": "adamw", "lr": 0.003},
}
EXPERIMENT = parse_experiment(BLOCK, "experiment")
SEARCH = SearchConfig.model_validate(
    {
        "experiment": "digits",
        "networks": True,
        "budget": {"trials": 1},
        "space": {
            "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
            "optimizer.betas": {"choice": [[0.9, 0.99], [0.8, 0.9]]},
        },
    }
)
SPACE, _ = bound("s", SEARCH, EXPERIMENT)


@given(st.integers(0, 2**32))
def test_any_point_of_a_space_of_networks_can_be_written(seed: int) -> None:
    import numpy as np

    values = SPACE.sample(np.random.default_rng(seed))
    wanted = SPACE.apply(EXPERIMENT, values)
    block = trial_block(BLOCK, values, wanted)
    assert parse_experiment(block, "block") == wanted
    assert len(block["task"]["network"]["stages"]) == 4
    assert block["optimizer"] == {"name": "adamw", "lr": values["optimizer.lr"], "betas": values["optimizer.betas"]}


def test_only_what_differs_is_added() -> None:
    values = {"optimizer.weight_decay": 0.1, "train.clip": 2.0}
    block = trial_block(BLOCK, values, replaced(EXPERIMENT, values.items(), "x"))
    assert block == {**BLOCK, "optimizer": {**BLOCK["optimizer"], "weight_decay": 0.1}, "train": {"clip": 2.0}}
    assert "weight_decay" not in BLOCK["optimizer"]  # the given block stays as it was
