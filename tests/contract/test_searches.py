"""Every search of params.yaml can start: its block fits its experiment, and what it suggests are experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.config.params import load_params
from assay.tune import objectives
from assay.tune.search import Search
from assay.tune.space import bound

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


@pytest.mark.parametrize("name", sorted(PARAMS.searches))
def test_a_search_can_start(name: str) -> None:
    config = PARAMS.search(name)
    space, experiment = bound(name, config, PARAMS.experiment(config.experiment))
    objectives.check(name, config, space, experiment)
    search = Search(config, space, experiment)
    found = search.suggestions(20)
    assert len({str(values) for values in found}) == 20
    for values in found:
        trial = space.apply(experiment, values)
        assert trial.data == experiment.data
