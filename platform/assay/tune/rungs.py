"""Early stopping of trials that fall behind: ASHA and Hyperband, by Optuna's pruners on a separate study.

ASHA: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, in the form that stops trials.
Hyperband: Li et al., JMLR 2018; a trial's bracket follows from its number. Optuna's pruners take one objective; ASHA
for several is ours, as in Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021: by front, then by
crowding.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from assay.config.search import SearchConfig
from assay.fronts import Scores, order

if TYPE_CHECKING:
    import optuna


class Rungs:
    """Decides at each rung whether a trial continues: the same reports in the same order lead to the same decisions."""

    def __init__(self, search: SearchConfig, epochs: int, objectives: int) -> None:
        self.epochs = rungs(search, epochs)
        self.comparison: _Fronts | _Pruner = _Fronts(search.reduction) if objectives > 1 else _Pruner(search, epochs)

    def begin(self, trial: int) -> None:
        self.comparison.begin(trial)

    def stops(self, trial: int, epoch: float, scores: Scores) -> bool:
        """Whether a trial with these scores (larger is better) ends at this rung."""
        return epoch in self.epochs and self.comparison.stops(trial, self.epochs.index(epoch), scores)

    def end(self, trial: int) -> None:
        self.comparison.end(trial)


class _Pruner:
    """One objective: a pruner of Optuna. It counts in rungs, as it takes only whole numbers."""

    def __init__(self, search: SearchConfig, epochs: int) -> None:
        import optuna

        logging.getLogger("optuna").setLevel(logging.ERROR)
        self.reduction = search.reduction
        pruner: optuna.pruners.BasePruner
        if search.scheduling == "asha":
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=self.reduction)
        else:
            most = int(epochs / search.first_rung + 1e-6)
            pruner = optuna.pruners.HyperbandPruner(1, most, reduction_factor=self.reduction)
        self.study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.RandomSampler(0), pruner=pruner, study_name="search"
        )
        self.trials: dict[int, optuna.Trial] = {}

    def begin(self, trial: int) -> None:
        self.trials[trial] = self.study.ask()

    def stops(self, trial: int, rung: int, scores: Scores) -> bool:
        self.trials[trial].report(scores[0], self.reduction**rung)
        return self.trials[trial].should_prune()

    def end(self, trial: int) -> None:
        from optuna.trial import TrialState

        self.study.tell(
            self.trials.pop(trial), state=TrialState.FAIL
        )  # its values stay on the rungs; its end adds nothing


class _Fronts:
    """Several objectives: the best part of a rung continues, one trial in `reduction`."""

    def __init__(self, reduction: int) -> None:
        self.reduction = reduction
        self.seen: dict[int, list[Scores]] = {}

    def begin(self, trial: int) -> None: ...

    def stops(self, trial: int, rung: int, scores: Scores) -> bool:  # noqa: ARG002
        seen = self.seen.setdefault(rung, [])
        seen.append(scores)
        best = order(np.array(seen))[: max(1, len(seen) // self.reduction)]
        return len(seen) - 1 not in best

    def end(self, trial: int) -> None: ...


def rungs(search: SearchConfig, epochs: int) -> tuple[float, ...]:
    """The epochs at which trials are compared: `first_rung` times the powers of `reduction`, below the end."""
    found: list[float] = []
    place = search.first_rung
    while place < epochs:
        found.append(round(place) if place > 0.99 else place)
        place = search.first_rung * search.reduction ** len(found)
    return tuple(found)
