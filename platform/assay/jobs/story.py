"""A search as people see it: its state turned into the plain rows that reports are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.report.search import SearchStory, TrialRow
from assay.train.folder import SPOOL
from assay.train.spool import read
from assay.tune.search import Search, Trial
from assay.tune.space import Parameter
from assay.tune.trial import trial_folder


def story(
    name: str,
    search_id: str,
    search: Search,
    facts: Mapping[str, str],
    run_ids: Mapping[int, str],
    folder: Path | None = None,
    baseline: Mapping[str, float] | None = None,
) -> SearchStory:
    """The story of a search so far. With `folder`, where trials have theirs, curves are read by epoch from spools."""
    metric = next(iter(search.objectives))
    return SearchStory(
        name=name,
        search_id=search_id,
        experiment=search.config.experiment,
        algorithm=search.config.sampler,
        scheduler=search.config.scheduling,
        objectives=search.objectives,
        parameters={parameter.key: _plain(parameter) for parameter in search.space.parameters},
        trials=[row(trial, metric, run_ids.get(trial.number, ""), folder) for trial in search.trials],
        facts=facts,
        fixed=search.config.set,
        baseline=baseline or {},
    )


def row(trial: Trial, metric: str, run_id: str = "", folder: Path | None = None) -> TrialRow:
    curve = [(epoch, metrics[metric]) for epoch, metrics in trial.curve if epoch and metric in metrics]
    metrics = trial.metrics or (trial.curve[-1][1] if trial.curve else {})
    if folder is not None and metric.startswith("val/"):
        curve = _by_epoch(trial_folder(folder, trial.number) / SPOOL, metric, trial) or curve
    return TrialRow(
        number=trial.number,
        status=trial.status,
        values=trial.values,
        metrics=metrics if trial.status != "failed" else {},
        curve=curve,
        seconds=trial.seconds,
        epochs=trial.trained,
        reason=trial.reason,
        parent=trial.parent,
        run_id=run_id,
    )


def _by_epoch(spool: Path, metric: str, trial: Trial) -> list[tuple[int, float]]:
    """(epoch, value) of every evaluation; a trial that began with its parent's weights counts on from there."""
    if not spool.exists():
        return []
    values = [record.metrics[metric] for record, _ in read(spool, 0) if metric in record.metrics]
    first = trial.trained - len(values) + 1 if trial.parent is not None else 1
    return [(max(first, 1) + place, value) for place, value in enumerate(values)]


def _plain(parameter: Parameter) -> dict[str, Any]:
    if parameter.choices is not None and not parameter.config.log:
        return {"choices": list(parameter.choices)}
    return {"low": parameter.low, "high": parameter.high, "log": parameter.config.log}
