"""Random, TPE and NSGA-II: Optuna's samplers behind its ask and tell, on a study in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from assay.fronts import Scores
from assay.tune.algorithms import Proposal, Setting
from assay.tune.space import Parameter, Values, identity

if TYPE_CHECKING:
    import optuna

PARTS = 1_000_000  # of an epoch: Optuna counts in whole numbers
STARTUP = 10  # random trials before TPE models the results, Optuna's default


class OptunaSampler:
    """An `Algorithm`. Optuna draws from one seeded generator in the order of the calls, so they can be repeated."""

    def __init__(self, setting: Setting) -> None:
        import optuna

        logging.getLogger("optuna").setLevel(logging.ERROR)
        self.space = setting.space
        self.study = optuna.create_study(
            sampler=_sampler(setting), directions=["maximize"] * setting.objectives, study_name="search"
        )
        self.trials: dict[int, optuna.Trial] = {}

    def ask(self, ticket: int, given: Values | None = None) -> Proposal:
        if given is not None:
            self.study.enqueue_trial({key: _shown(value) for key, value in given.items()})
        trial = self.trials[ticket] = self.study.ask()
        values: dict[str, Any] = {}
        for parameter in self.space.parameters:
            if parameter.counts(values):
                values[parameter.key] = _suggest(trial, parameter)
        return Proposal(values)

    def report(self, ticket: int, epoch: float, score: float) -> None:
        self.trials[ticket].report(score, round(epoch * PARTS))

    def tell(self, ticket: int, scores: Scores | None, stopped: bool = False) -> None:
        from optuna.trial import TrialState

        trial = self.trials.pop(ticket)
        if scores is None:
            self.study.tell(trial, state=TrialState.FAIL)
        elif stopped and len(scores) == 1:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:  # with several objectives Optuna has no early end: the trial counts with its last scores
            self.study.tell(trial, list(scores))


def _sampler(setting: Setting) -> optuna.samplers.BaseSampler:
    import warnings

    import optuna

    seed, name = setting.seed, setting.search.sampler
    if name == "random":
        return optuna.samplers.RandomSampler(seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=setting.search.population, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # groups: parameters that count together are modelled together, conditional ones separately;
        # liar: a running trial counts as a poor one, so that those next to it try other places
        return optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=True, seed=seed
        )


def _suggest(trial: optuna.Trial, parameter: Parameter) -> Any:
    config = parameter.config
    if config.choice is not None:
        assert parameter.choices is not None
        by_name: Mapping[Any, Any] = {_shown(value): value for value in parameter.choices}
        return by_name[trial.suggest_categorical(parameter.key, list(by_name))]
    low, high = config.range
    if config.whole:
        step = int(config.step or 1)
        return trial.suggest_int(parameter.key, int(low), _last(low, high, step), step=step, log=config.log)
    if config.step is not None:
        value = trial.suggest_float(parameter.key, low, _last(low, high, config.step), step=config.step)
        return round(value, 12)
    return trial.suggest_float(parameter.key, low, high, log=config.log)


def _last(low: float, high: float, step: float) -> Any:
    """The last value that is a whole number of steps above the low end."""
    last = low + int((high - low) / step + 1e-9) * step
    return int(last) if isinstance(step, int) else last


def _shown(value: Any) -> Any:
    """A choice as Optuna takes it: lists and mappings as text."""
    return identity({"choice": value}) if isinstance(value, (list, dict)) else value
