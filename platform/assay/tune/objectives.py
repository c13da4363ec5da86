"""Checks, before the first trial, that a search fits its experiment."""

from __future__ import annotations

from assay.config.experiment import ExperimentConfig
from assay.config.search import SearchConfig
from assay.errors import InputError, known
from assay.tune.space import Space

FIXED = ("data", "seed", "gate", "task.name", "train.workers", "train.device", "train.checkpoint_seconds")
"""Keys that are the same for all trials, with those below them."""

KEPT = ("optimizer.lr", "optimizer.weight_decay", "optimizer.momentum", "optimizer.betas", "train.clip")
"""Keys that may change while the weights are kept, besides those of the task that change no shape."""


def check(name: str, search: SearchConfig, space: Space, experiment: ExperimentConfig) -> None:
    """Refuse what cannot work.

    Raises:
        InputError: a metric that the task does not report; a setting that the algorithm or a key does not allow.
    """
    origin = f"params.yaml: searches.{name}"
    reported = [f"val/{metric}" for metric in experiment.task.metrics]
    for metric in search.objectives:
        if metric.startswith("val/") and metric not in reported:
            raise InputError(f"{origin}.objectives: {known('metric', metric, reported)}")
    for key in space.by_key:
        if key.startswith(FIXED):
            raise InputError(f"{origin}.space: {key} cannot be searched: leave it out")
    if search.scheduling and "train.epochs" in space.by_key:
        raise InputError(
            f"{origin}.space: train.epochs cannot be searched while {search.scheduling} compares by epochs"
        )
    if search.scheduling and search.first_rung >= experiment.train.epochs:
        raise InputError(
            f"{origin}.first_rung: {search.first_rung} epochs leave nothing to stop in trainings of "
            f"{experiment.train.epochs}: lower it, or raise train.epochs"
        )
    if search.inherits:
        _check_inheritance(origin, search, space, experiment)


def _check_inheritance(origin: str, search: SearchConfig, space: Space, experiment: ExperimentConfig) -> None:
    if experiment.train.workers > 1:
        raise InputError(f"{origin}: {search.sampler} needs trials of one worker: set train.workers: 1")
    if search.interval >= experiment.train.epochs:
        raise InputError(
            f"{origin}.interval: {search.interval} epochs leave nothing to compare in trainings of "
            f"{experiment.train.epochs}: lower it"
        )
    for parameter in space.parameters:
        whole, _, part = parameter.key.partition(".")
        if parameter.key not in KEPT and (whole != "task" or part.partition(".")[0] in _shapes(experiment)):
            raise InputError(
                f"{origin}.space: {parameter.key} cannot change while {search.sampler} keeps the weights; it may "
                f"search {', '.join(KEPT)}, and keys of the task that leave the networks unchanged"
            )


def _shapes(experiment: ExperimentConfig) -> set[str]:
    """The keys of the task that change its networks, as far as it declares them."""
    return {key.partition(".")[0] for key in experiment.task.networks()} | {"name", "architecture", "weights", "width"}
