"""Pictures of what the searched parameters do: parallel coordinates, and how much each matters."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.fronts import gains
from assay.report.pictures import _figure, _png
from assay.report.search import NOT_USED, SearchSnapshot, TrialRow, ranked, text
from assay.report.search_pictures import ACCENT, SHADES, bounds, wide

PALE_BAR = "#a9c0d3"
ASIDE = 1.09  # where parameters that do not count are drawn; their axis ends at 1
LETTERS = 105  # that fit below an axis
FEWEST = 8  # fewest trials for which importance is computed
SHUFFLES = 20  # of the scores, to see how important a parameter looks by chance
TOP = 0.25  # share of the trials that count as good


@dataclass(frozen=True)
class Axis:
    """Where the values of one key or metric lie, 0..1, and the labels written there."""

    name: str
    ticks: Sequence[tuple[float, str]]
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: Sequence[str] = ()

    def place(self, value: Any, spread: float) -> float:
        """Values beyond the ends lie at the ends; equal choices are moved apart by `spread`, -0.5..0.5."""
        if self.choices:
            name = json.dumps(value, default=str)
            index = self.choices.index(name) if name in self.choices else len(self.choices) - 1
            return (index + 0.5 + 0.55 * spread) / len(self.choices)
        value, low, high = (math.log(max(v, 1e-300)) if self.log else v for v in (value, self.low, self.high))
        return min(max((value - low) / (high - low), 0.0), 1.0) if high != low else 0.5


def parallel_coordinates(snapshot: SearchSnapshot) -> bytes | None:
    """One line per trial over one axis for each searched key and objective; None if no trial has a first objective.

    The axes lie below each other, so that their names stay readable. Darker is better. Objectives are better on the
    right; the worst values are drawn at the left end. A parameter that does not count is at `n/a`. Stopped trials count
    by the last objective seen; failed ones are dotted and end before the objectives.
    """
    metric = snapshot.objective
    first = {metric: snapshot.objectives[metric]}
    shown = ranked(snapshot.trials, first, ("stopped",)) + ranked(snapshot.trials, first)
    if not shown:
        return None
    keys = {key: _axis(key, given) for key, given in snapshot.parameters.items()}
    metrics = {name: _metric_axis(snapshot, name, shown) for name in snapshot.objectives}
    axes = [*keys.values(), *metrics.values()]
    figure, plot = _figure(9, 0.9 + 0.54 * len(axes))
    _scaffold(plot, axes, len(keys))
    for row, key in enumerate(keys):
        if any(key not in trial.values for trial in shown):
            plot.text(ASIDE, row - 0.1, NOT_USED, ha="center", fontsize=7, color="#666", zorder=5)
    for trial in (t for t in snapshot.trials if t.status == "failed"):
        xs, ys = _line(trial, keys, {})
        plot.plot(xs, ys, color=ACCENT, linewidth=0.7, linestyle=":", alpha=0.5, zorder=1)
    _trials(plot, shown, keys, metrics, metric)
    note = f"{len(shown)} trials, darker is better"
    for best in ranked(shown, snapshot.objectives)[:1]:
        xs, ys = _line(best, keys, metrics)
        plot.plot(xs, ys, color=ACCENT, linewidth=2.2, zorder=4, marker="o", markersize=3.5)
        note += f", red: trial {best.number}, the best"
    note += ", dotted: failed" if snapshot.count("failed") else ""
    plot.set_title(note, fontsize=9)
    return _png(figure)


def _trials(plot: Any, shown: Sequence[TrialRow], keys: Any, metrics: Any, metric: str) -> None:
    from matplotlib import colormaps

    width, palest, faintest = (1.3, 0.35, 0.5) if len(shown) <= 60 else (0.8, 0.2, 0.25)
    order = sorted(shown, key=lambda t: metrics[metric].place(t.metrics[metric], 0))
    for place, trial in enumerate(order, 1):
        share = (place / len(order)) ** 2  # by rank, so that few lines are dark whatever the scores
        xs, ys = _line(trial, keys, metrics)
        colour = colormaps[SHADES](palest + (1 - palest) * share)
        plot.plot(xs, ys, color=colour, linewidth=width, alpha=faintest + (0.8 - faintest) * share, zorder=2)


def _line(trial: TrialRow, keys: Mapping[str, Axis], metrics: Mapping[str, Axis]) -> tuple[list[float], list[int]]:
    spread = trial.number * 0.618034 % 1 - 0.5  # evenly spread, whatever the number of trials
    xs = [
        axis.place(trial.values[key], spread) if key in trial.values else ASIDE + 0.03 * spread
        for key, axis in keys.items()
    ]
    for name, axis in metrics.items():
        value = trial.metrics.get(name, math.nan)
        xs.append(axis.place(value, spread) if math.isfinite(value) else ASIDE)
    return xs, list(range(len(xs)))


def _scaffold(plot: Any, axes: Sequence[Axis], keys: int) -> None:
    """The axes, their names on the left and their values below."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.9}
    for row, axis in enumerate(axes):
        plot.plot(
            [0, 1], [row, row], color="#444" if row < keys else "black", linewidth=1 if row < keys else 1.8, zorder=3
        )
        for place, label in axis.ticks:
            plot.plot([place, place], [row - 0.07, row + 0.07], color="#444", linewidth=0.8, zorder=3)
            plot.text(
                place, row + 0.14, label, ha="center", va="top", fontsize=6.5, parse_math=False, zorder=5, bbox=box
            )
    plot.set_yticks(range(len(axes)), [axis.name for axis in axes], fontsize=8, parse_math=False)
    plot.set(ylim=(len(axes) - 0.35, -0.5), xlim=(-0.02, ASIDE + 0.05), xticks=[])
    plot.tick_params(length=0)
    plot.spines[:].set_visible(False)


def _axis(key: str, given: Mapping[str, Any]) -> Axis:
    if "choices" in given:
        choices = [json.dumps(value, default=str) for value in given["choices"]]
        room = max(LETTERS // len(choices) - 2, 3)
        every = -(-len(choices) * 4 // LETTERS)  # above 1 if there are too many choices for four letters each
        names = [text(value) for value in given["choices"]]
        ticks = [((i + 0.5) / len(names), _cut(names[i], room * every)) for i in range(0, len(names), every)]
        return Axis(_cut(key, 40), ticks, choices=choices)
    low, high, log = float(given["low"]), float(given["high"]), bool(given.get("log"))
    return _range(_cut(key, 40), low, high, log)


def _metric_axis(snapshot: SearchSnapshot, name: str, shown: Sequence[TrialRow]) -> Axis:
    values = [t.metrics[name] for t in shown if math.isfinite(t.metrics.get(name, math.nan))]
    way = snapshot.objectives[name]
    log = bool(values) and name.startswith("cost/") and wide(values)
    low, high = (min(values), max(values)) if log else bounds(values, way)
    return _range(f"{name} ({way})", low, high, log, turned=way == "min")


def _range(name: str, low: float, high: float, log: bool, turned: bool = False) -> Axis:
    from matplotlib.ticker import LogLocator, MaxNLocator

    found = (LogLocator(numticks=7) if log else MaxNLocator(5)).tick_values(low, high)
    axis = Axis(name, (), *((high, low) if turned else (low, high)), log)
    ticks = {axis.place(v, 0): v for v in found if low <= v <= high}
    for end in (low, high):
        if all(abs(axis.place(end, 0) - place) > 0.07 for place in ticks):
            ticks[axis.place(end, 0)] = end
    return Axis(name, [(place, f"{value:.3g}") for place, value in sorted(ticks.items())], axis.low, axis.high, log)


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: max(length - 1, 1)]}…"


def importance(snapshot: SearchSnapshot) -> bytes | None:
    """How much each searched key has to do with being among the best quarter; None if that is unknown.

    By PED-ANOVA in its conditional form (Watanabe et al., IJCAI 2023; Optuna's `PedAnovaImportanceEvaluator`): how much
    the values of good trials differ from those of all. A parameter that counts only in some trials is judged among
    these and weighted by how often good trials use it; that it counts at all is credited to the key that decides it.
    Only the order of the trials matters: first the finished ones by the first objective, then the stopped ones, those
    that got farther first, and if equally far by the last objective seen. Shares add up to 1. A grey mark shows what 19
    of 20 random orders stay below: bars that end before it may be chance. There is no picture if such trials are fewer
    than eight, if all scores are equal, if nothing varies, or if trials have parents, whose scores they inherit.
    """
    shares = importances(snapshot)
    if not shares:
        return None
    names = list(shares)
    figure, axes = _figure(8, 0.9 + 0.26 * len(names))
    values = [share for share, _ in shares.values()]
    chance = [mark for _, mark in shares.values()]
    colours = ["#30638e" if value > mark else PALE_BAR for value, mark in zip(values, chance, strict=True)]
    axes.barh(range(len(names)), values, 0.65, color=colours)
    marks = axes.scatter(np.minimum(chance, 1), range(len(names)), 110, "#555", marker="|", zorder=3)
    axes.set_yticks(range(len(names)), [_cut(name, 40) for name in names], fontsize=8, parse_math=False)
    axes.set(xlim=(0, 1.02 * max(values + [min(mark, 1) for mark in chance])), ylim=(len(names) - 0.4, -0.6))
    axes.set_xlabel(f"share of the importance for {snapshot.objective}", parse_math=False, fontsize=9)
    axes.legend([marks], ["chance reaches this far"], loc="lower right", fontsize=8)
    axes.grid(axis="x", alpha=0.25)
    return _png(figure)


def importances(snapshot: SearchSnapshot) -> dict[str, tuple[float, float]]:
    """Each key that varies: its share of the importance, and the share that chance reaches; the largest first.

    Empty if `importance` makes no picture.
    """
    from optuna.importance import PedAnovaImportanceEvaluator

    order = _in_order(snapshot)
    scores = {gains(trial.metrics, {snapshot.objective: "max"}) for trial in order}
    seen = {k: {json.dumps(t.values[k], default=str) for t in order if k in t.values} for k in snapshot.parameters}
    keys = [key for key, values in seen.items() if len(values) > 1]
    inherited = any(trial.parent is not None for trial in order)
    if len(order) < FEWEST or len(scores) < 2 or not keys or inherited:
        return {}
    study = _study(snapshot, order, keys)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(TOP, 5 / len(order))))
    random = np.random.default_rng(0)
    ranks = np.arange(len(order))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns that smaller targets count as better; so they do in ranks
        own = evaluator.evaluate(study, keys, target=lambda trial: float(ranks[trial.number]))
        total = sum(own.values())
        if not total > 0:
            return {}
        chance = []
        for _ in range(SHUFFLES):
            random.shuffle(ranks)
            chance.append(evaluator.evaluate(study, keys, target=lambda trial: float(ranks[trial.number])))
    marks = {key: float(np.quantile([found[key] for found in chance], 0.95)) / total for key in keys}
    return {key: (own[key] / total, marks[key]) for key in sorted(keys, key=lambda key: -own[key])}


def _in_order(snapshot: SearchSnapshot) -> list[TrialRow]:
    first = {snapshot.objective: snapshot.objectives[snapshot.objective]}
    stopped = ranked(snapshot.trials, first, ("stopped",))
    return ranked(snapshot.trials, first) + sorted(stopped, key=lambda trial: -trial.epochs)


def _study(snapshot: SearchSnapshot, order: Sequence[TrialRow], keys: Sequence[str]) -> Any:
    """The trials as an Optuna study; lists and the like as JSON."""
    import optuna

    spaces: dict[str, Any] = {}
    for key in keys:
        given = snapshot.parameters[key]
        if "choices" in given:
            names = [json.dumps(value, default=str) for value in given["choices"]]
            spaces[key] = optuna.distributions.CategoricalDistribution(list(dict.fromkeys(names)))
        else:
            low, high, log = float(given["low"]), float(given["high"]), bool(given.get("log"))
            spaces[key] = optuna.distributions.FloatDistribution(low, high, log=log)
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    optuna.logging.set_verbosity(level)
    for trial in order:
        own = {key: _plain(trial.values[key], spaces[key]) for key in keys if key in trial.values}
        own = {key: value for key, value in own.items() if spaces[key]._contains(spaces[key].to_internal_repr(value))}
        study.add_trial(
            optuna.trial.create_trial(params=own, distributions={key: spaces[key] for key in own}, value=0.0)
        )
    return study


def _plain(value: Any, space: Any) -> Any:
    """A value as its space stores it, moved back to the end of the range if rounding has passed it."""
    if hasattr(space, "choices"):
        return json.dumps(value, default=str)
    return min(max(float(value), space.low), space.high)
