"""Early stopping of trials that fall behind: ASHA and Hyperband, by Optuna's pruners on a study of their own.

ASHA: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, in the form that stops trials.
Hyperband: Li et al., JMLR 2018; a trial's bracket follows from its number.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from assay.search_config import SearchConfig

if TYPE_CHECKING:
    import optuna


class Rungs:
    """Decides at each rung whether a trial goes on. Deterministic: the same reports in the same order decide alike."""

    def __init__(self, search: SearchConfig, epochs: int) -> None:
        import optuna

        logging.getLogger("optuna").setLevel(logging.ERROR)
        self.epochs = rungs(search, epochs)
        first, reduction = search.first_rung, search.reduction
        pruner: optuna.pruners.BasePruner
        if search.scheduling == "asha":
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=reduction)
        else:
            pruner = optuna.pruners.HyperbandPruner(first, epochs, reduction_factor=reduction)
        self.study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.RandomSampler(0), pruner=pruner, study_name="search"
        )
        self.trials: dict[int, optuna.Trial] = {}

    def begin(self, trial: int) -> None:
        self.trials[trial] = self.study.ask()

    def stops(self, trial: int, epoch: int, score: float) -> bool:
        """True where a trial with this score (larger is better) ends at this rung."""
        if epoch not in self.epochs:
            return False
        self.trials[trial].report(score, epoch)
        return self.trials[trial].should_prune()

    def end(self, trial: int) -> None:
        from optuna.trial import TrialState

        self.study.tell(
            self.trials.pop(trial), state=TrialState.FAIL
        )  # its values stay on the rungs; the end is no news


def rungs(search: SearchConfig, epochs: int) -> tuple[int, ...]:
    """The epochs at which trials are compared: `first_rung` times the powers of `reduction`, below the end."""
    found = [search.first_rung]
    while found[-1] * search.reduction < epochs:
        found.append(found[-1] * search.reduction)
    return tuple(epoch for epoch in found if epoch < epochs)
