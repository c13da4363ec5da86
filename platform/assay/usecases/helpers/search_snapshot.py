"""Takes snapshots of a search for reports: its state as plain rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.report.search import SearchSnapshot, TrialRow
from assay.sealed import Line
from assay.train.folder import SPOOL, read_steps
from assay.train.spool import read_spool
from assay.tune.search import ENDED, Search, Trial
from assay.tune.space import Parameter
from assay.tune.trial import epochs_at, trial_folder

Curve = Sequence[tuple[float, float]]


def take_snapshot(
    name: str,
    search_id: str,
    search: Search,
    details: Mapping[str, str],
    run_ids: Mapping[int, str],
    curves: TrialCurves,
    baseline: Mapping[str, float],
) -> SearchSnapshot:
    """The search so far."""
    metric = next(iter(search.objectives))
    return SearchSnapshot(
        name=name,
        search_id=search_id,
        experiment=search.config.experiment,
        algorithm=search.config.sampler,
        scheduler=search.config.scheduling,
        objectives=search.objectives,
        parameters={parameter.key: _plain(parameter) for parameter in search.space.parameters},
        trials=[trial_row(t, metric, run_ids.get(t.number, ""), curves.of(search, t, metric)) for t in search.trials],
        details=details,
        fixed=search.config.set,
        baseline=baseline,
    )


def trial_row(trial: Trial, metric: str, run_id: str = "", by_epoch: Curve = ()) -> TrialRow:
    """A trial as a row. `by_epoch` is its curve, if more points are known than it reported."""
    curve = by_epoch or [(epoch, metrics[metric]) for epoch, metrics in trial.curve if epoch and metric in metrics]
    metrics = trial.metrics or (trial.curve[-1][1] if trial.curve else {})
    return TrialRow(
        number=trial.number,
        status=trial.status,
        values=trial.values,
        metrics=metrics if trial.status != "failed" else {},
        curve=curve,
        seconds=trial.seconds,
        epochs=max(trial.trained, curve[-1][0] if curve else 0),
        reason=trial.reason,
        parent=trial.parent,
        run_id=run_id,
    )


class TrialCurves:
    """The evaluations of trials, from their spools in a search's folder. Those of ended trials are read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[int, Curve] = {}

    def of(self, search: Search, trial: Trial, metric: str) -> Curve:
        """(epoch, value) of every evaluation; none if a file is damaged, for the journal has those that were judged.

        A trial that started from its parent's weights continues its count.
        """
        if trial.number in self.known:
            return self.known[trial.number]
        folder, epochs = trial_folder(self.folder, trial.number), search.whole(trial.values)
        if not (folder / SPOOL).exists():
            return []
        damaged: list[Line] = []
        records = [r for r, _ in read_spool(folder / SPOOL, 0, damaged.append) if metric in r.metrics]
        steps = read_steps(folder)
        if damaged or steps is None:
            return []
        curve = [(epochs_at(record.step, steps, epochs), record.metrics[metric]) for record in records]
        if trial.status in ENDED:
            self.known[trial.number] = curve
        return curve


def _plain(parameter: Parameter) -> dict[str, Any]:
    if parameter.choices is not None and not parameter.config.log:
        return {"choices": list(parameter.choices)}
    return {"low": parameter.low, "high": parameter.high, "log": parameter.config.log}
