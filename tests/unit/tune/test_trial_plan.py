"""How many trials at a time, and what each has: from the machine, or as the search says."""

from __future__ import annotations

import pytest

from assay.config.experiment import TrainConfig
from assay.errors import InputError
from assay.tune.plan import TrialPlan, trial_plan
from assay.workers.plan import Slots


def shares(plan: TrialPlan) -> tuple[int, int, float, float]:
    return plan.parallel, plan.threads, plan.cpus, plan.gpus


@pytest.mark.parametrize(
    ("train", "parallel", "slots", "expected"),
    [
        ({"workers": 0}, None, Slots(2, 0), (2, 1, 1.0, 0.0)),
        ({"workers": 1}, 1, Slots(2, 0), (1, 2, 2.0, 0.0)),
        ({"workers": 0}, 4, Slots(2, 0), (4, 1, 0.5, 0.0)),
        ({"workers": 0}, 3, Slots(2, 0), (3, 1, 0.6666, 0.0)),  # rounded down: three of them fit
        ({"workers": 2}, None, Slots(8, 0), (4, 1, 2.0, 0.0)),
        ({"workers": 0}, None, Slots(16, 2, "H100"), (2, 8, 8.0, 1.0)),
        ({"workers": 0}, 8, Slots(16, 2, "H100"), (8, 2, 2.0, 0.25)),  # four small trials share a GPU
        ({"workers": 0, "device": "cpu"}, None, Slots(16, 2, "H100"), (16, 1, 1.0, 0.0)),
        ({"workers": 4}, None, Slots(400, 100, "H100"), (25, 4, 16.0, 1.0)),
    ],
)
def test_what_a_trial_has(
    train: dict[str, object], parallel: int | None, slots: Slots, expected: tuple[int, int, float, float]
) -> None:
    plan = trial_plan(TrainConfig.model_validate(train), parallel, slots)
    assert shares(plan) == expected
    assert plan.parallel * plan.cpus <= slots.cpus
    assert plan.workers > 1 or plan.parallel * plan.gpus <= slots.gpus


@pytest.mark.parametrize(
    ("train", "parallel", "line"),
    [
        ({"workers": 2}, 2, "parallel: 2 trials of 2 workers need 4 CPU cores, but there are 2: use 1 at a time"),
        ({"workers": 3, "batch_size": 63}, None, "train.workers: 3 workers need 3 CPU cores"),
    ],
)
def test_what_does_not_fit(train: dict[str, object], parallel: int | None, line: str) -> None:
    with pytest.raises(InputError, match=line):
        trial_plan(TrainConfig.model_validate(train), parallel, Slots(2, 0))
