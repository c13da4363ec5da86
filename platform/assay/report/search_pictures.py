"""Pictures of a search over its course: progress, learning curves, the front, and lines of descent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from assay.fronts import gains
from assay.report.pictures import _figure, _png
from assay.report.search import SearchSnapshot, TrialRow, front, ranked, short, text

SHADES = "YlGnBu"  # pale to dark: the better, the darker
ACCENT = "#d1495b"
PALE = "#b8c0cc"
WIDE = 1.5  # orders of magnitude beyond which an axis is logarithmic
LABEL_ROOM = 14.0  # points of the picture between two trial numbers
MOST_LINES = 5  # most searched keys drawn along a line of descent


def progress(snapshot: SearchSnapshot) -> bytes | None:
    """The first objective of each trial by its number, and the best so far; None if no trial has ended."""
    if not snapshot.count("finished", "stopped", "failed", "over"):
        return None
    metric = snapshot.objective
    figure, axes = _figure(8, 3.6)
    kinds = {
        "finished": {"color": "#30638e", "s": 22, "label": "finished"},
        "stopped": {
            "facecolors": "none",
            "edgecolors": "#7a8ca0",
            "s": 16,
            "linewidths": 0.8,
            "label": "stopped early",
        },
    }
    scores = {status: _scores(snapshot, status) for status in kinds}
    low, high = bounds([v for found in scores.values() for _, v in found], snapshot.objectives[metric])
    for status, style in kinds.items():
        _points(axes, scores[status], (low, high), style)
    _best_so_far(axes, scores["finished"], snapshot.objectives[metric], max(t.number for t in snapshot.trials))
    for status, marker, colour in (("failed", "x", ACCENT), ("over", "s", "#9b8a5a")):
        numbers = [t.number for t in snapshot.trials if t.status == status]
        if numbers:
            place = axes.get_xaxis_transform()
            label = "failed" if status == "failed" else "over the limits"
            axes.scatter(
                numbers, [0.03] * len(numbers), 20, colour, marker=marker, transform=place, label=label, zorder=4
            )
    if any(scores.values()) and metric in snapshot.baseline and low <= snapshot.baseline[metric] <= high:
        axes.axhline(snapshot.baseline[metric], color="grey", linestyle=":", linewidth=1.2, label="baseline")
    axes.set_xlim(
        -0.5 - 0.01 * len(snapshot.trials), max(t.number for t in snapshot.trials) + 0.5 + 0.01 * len(snapshot.trials)
    )
    axes.set_ylim(low - 0.12 * (high - low), high + 0.06 * (high - low))
    axes.set(xlabel="trial")
    if any(scores.values()):
        _titled(axes, ylabel=_way(snapshot, metric))
    else:
        axes.set(yticks=[], title="no trial has a score")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    return _png(figure)


def rungs(snapshot: SearchSnapshot) -> bytes | None:
    """Learning curves by epoch, darker the farther they go; stopped ones end with a mark. None without curves."""
    from matplotlib import colormaps

    drawn = [trial for trial in snapshot.trials if trial.curve]
    if not drawn:
        return None
    ends = [trial.curve[-1][0] for trial in drawn]
    low, high = bounds([v for t in drawn for _, v in t.curve], snapshot.objectives[snapshot.objective], share=0.1)
    figure, axes = _figure(8, 4)
    width = 1.0 if len(drawn) <= 60 else 0.6
    best = next(iter(ranked(drawn, snapshot.objectives)), None)
    for trial, end in zip(drawn, ends, strict=True):
        epochs, values = zip(*_inherited(snapshot, trial)[-1 - len(trial.curve) :], strict=True)
        colour = colormaps[SHADES](0.3 + 0.6 * math.log(max(end, 1)) / max(math.log(max(ends)), 1e-9))
        axes.plot(epochs, np.clip(values, low, high), color=colour, linewidth=width, alpha=0.7)
        if trial.status in ("stopped", "failed") or len(epochs) == 1:
            marker, shade = ("x", ACCENT) if trial.status == "failed" else ("o", colour)
            axes.plot(end, min(max(values[-1], low), high), marker, color=shade, markersize=5 if marker == "x" else 3)
    if best is not None:
        epochs, values = zip(*_inherited(snapshot, best), strict=True)
        label = f"best: trial {best.number}"
        axes.plot(epochs, np.clip(values, low, high), "o-", color=ACCENT, linewidth=2, markersize=3, label=label)
    if snapshot.scheduler and max(ends) >= 16:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.set(xlabel="epoch")
    _titled(axes, ylabel=_way(snapshot, snapshot.objective))
    stopped = sum(trial.status == "stopped" for trial in drawn)
    axes.set_title(
        f"{len(drawn)} trials, {stopped} stopped early (where a dot ends the line)"
        if stopped
        else f"{len(drawn)} trials",
        fontsize=9,
    )
    axes.grid(alpha=0.25)
    if best is not None:
        axes.legend(
            loc="lower right" if snapshot.objectives[snapshot.objective] == "max" else "upper right", fontsize=8
        )
    return _png(figure)


def _inherited(snapshot: SearchSnapshot, trial: TrialRow) -> list[tuple[float, float]]:
    """The curve of a trial, preceded by those of its ancestors."""
    trials = {t.number: t for t in snapshot.trials}
    curve = list(trial.curve)
    while trial.parent in trials:
        trial = trials[trial.parent]
        curve = [point for point in trial.curve if point[0] < curve[0][0]] + curve
    return curve


def front_picture(snapshot: SearchSnapshot) -> bytes | None:
    """The finished trials and the front, a panel for each pair of objectives; None with one objective or no trial.

    With two objectives the front is a step line; with more it is only marked, as it may look dominated in one pair.
    """
    shown = ranked(snapshot.trials, snapshot.objectives)
    if len(snapshot.objectives) < 2 or not shown:
        return None
    pairs = list(combinations(snapshot.objectives, 2))
    columns = 1 if len(pairs) == 1 else min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure, first = _figure(7 if columns == 1 else 4.6 * columns, 4.4 * rows)
    first.remove()
    for number, (y, x) in enumerate(pairs, 1):
        _trade_off(snapshot, shown, figure.add_subplot(rows, columns, number), x, y)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.draw_without_rendering()  # from here on, the positions of the points are known
    best = front(shown, snapshot.objectives)
    for axes, (y, x) in zip(figure.axes, pairs, strict=True):
        _numbered(axes, best, x, y)
    return _png(figure)


def _trade_off(snapshot: SearchSnapshot, shown: Sequence[TrialRow], axes: Any, x: str, y: str) -> None:
    best = front(shown, snapshot.objectives)
    reference = [snapshot.baseline] if x in snapshot.baseline and y in snapshot.baseline else []
    across = [m[x] for m in [*(t.metrics for t in shown), *reference]]
    always = [*(t.metrics for t in best), *reference]
    if wide(across):
        axes.set_xscale("log")
    low, high = _upright(axes, [t.metrics[y] for t in shown], snapshot.objectives[y], [m[y] for m in always])
    others = [(t.metrics[x], t.metrics[y]) for t in shown if t not in best]
    _points(axes, others, (low, high), {"color": PALE, "s": 14, "label": "dominated"})
    line = sorted((t.metrics[x], t.metrics[y]) for t in best)
    if len(snapshot.objectives) == 2 and len(line) > 1:
        after = snapshot.objectives[x] == "min"
        axes.step(*zip(*line, strict=True), where="post" if after else "pre", color=ACCENT, linewidth=1, alpha=0.6)
    axes.scatter(*zip(*line, strict=True), 30, ACCENT, zorder=3, label="on the front")
    if reference:
        axes.scatter(
            *across[-1:], snapshot.baseline[y], 90, "black", marker="+", linewidths=2, zorder=4, label="baseline"
        )
    axes.margins(x=0.08)
    _titled(axes, xlabel=_way(snapshot, x), ylabel=_way(snapshot, y))
    axes.grid(alpha=0.25)


def _numbered(axes: Any, best: Sequence[TrialRow], x: str, y: str) -> None:
    """Trial numbers at the points of the front, where there is room."""
    taken: list[Any] = []
    for trial in best:
        spot = axes.transData.transform((trial.metrics[x], trial.metrics[y])) * 72 / axes.figure.dpi
        if all(max(abs(spot - other) / (1.3, 1)) > LABEL_ROOM for other in taken):
            taken.append(spot)
            where = (trial.metrics[x], trial.metrics[y])
            axes.annotate(str(trial.number), where, (0, 5), textcoords="offset points", ha="center", fontsize=7.5)


def _upright(axes: Any, values: Sequence[float], way: str, always: Sequence[float]) -> tuple[float, float]:
    """Set up the vertical axis, logarithmic if values spread wide; returns the ends that it shows."""
    if wide([*values, *always]):
        axes.set_yscale("log")
        axes.margins(y=0.08)
        return min(*values, *always), max(*values, *always)
    low, high = bounds(values, way, always)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.1 * (high - low))
    return low, high


def lineage(snapshot: SearchSnapshot) -> bytes | None:
    """Population-based training: trials by generation and member, arrows where weights were copied to another member.

    Below, the searched values along the best trial's line of descent. None if no trial has a parent. A member is a line
    of trials that each continue the one before; any other trial goes to a free line of its generation.
    """
    trials = {trial.number: trial for trial in snapshot.trials}
    if not any(trial.parent in trials for trial in snapshot.trials):
        return None
    places = _members(trials)
    best = next(iter(ranked(snapshot.trials, snapshot.objectives)), None)
    line = [best] if best else []
    while line and line[-1].parent in trials:
        line.append(trials[line[-1].parent])
    keys = [k for k in snapshot.parameters if len({str(t.values.get(k)) for t in line}) > 1][:MOST_LINES]
    generations = 1 + max(column for column, _ in places.values())
    members = 1 + max(row for _, row in places.values())
    upper = min(1.2 + 0.32 * members, 10)
    figure, top = _figure(min(max(7, 1.5 + 0.55 * generations), 16), upper + 1.1 * len(keys))
    top.remove()
    panels = figure.subplots(1 + len(keys), 1, sharex=True, squeeze=False, height_ratios=[upper, *[1.0] * len(keys)])[
        :, 0
    ]
    _tree(snapshot, figure, panels[0], places, {trial.number for trial in line})
    names = short(keys)
    for axes, key in zip(panels[1:], keys, strict=True):
        points = [(places[t.number][0], t.values[key]) for t in reversed(line) if key in t.values]
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for _, v in points):
            axes.plot(*zip(*points, strict=True), "o-", color=ACCENT, markersize=3)
            axes.set_yscale("log" if snapshot.parameters[key].get("log") else "linear")
        else:
            axes.plot([c for c, _ in points], [text(v)[:16] for _, v in points], "o-", color=ACCENT, markersize=3)
        _titled(axes, ylabel=names[key][-16:])
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
    panels[-1].set_xlabel("generation")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return _png(figure)


def _tree(snapshot: SearchSnapshot, figure: Any, axes: Any, places: dict[int, tuple[int, int]], line: set[int]) -> None:
    for trial in snapshot.trials:
        column, row = places[trial.number]
        if trial.parent not in places:
            continue
        before = places[trial.parent]
        held = trial.number in line
        style: dict[str, Any] = {"color": ACCENT if held else "#8a94a3", "linewidth": 2 if held else 0.8}
        if before[1] == row:
            axes.plot([before[0], column], [row, row], zorder=1, **style)
        else:
            arrow = {"arrowstyle": "-|>", "shrinkA": 4, "shrinkB": 5, "zorder": 1.5, **style}
            axes.annotate("", (column, row), before, arrowprops=arrow)
    seen = [t for t in snapshot.trials if gains(t.metrics, {snapshot.objective: "max"}) is not None]
    if seen:
        values = [t.metrics[snapshot.objective] for t in seen]
        shades = SHADES if snapshot.objectives[snapshot.objective] == "max" else f"{SHADES}_r"
        low, high = bounds(values, snapshot.objectives[snapshot.objective])
        spots = list(zip(*(places[t.number] for t in seen), strict=True))
        marks = axes.scatter(*spots, 46, values, cmap=shades, vmin=low, vmax=high, zorder=3, edgecolors="#8a94a3")
        bar = figure.colorbar(marks, ax=axes, pad=0.01, fraction=0.04)
        bar.set_label(snapshot.objective, fontsize=8, parse_math=False)
    for trial in snapshot.trials:
        if trial not in seen:
            axes.scatter(*places[trial.number], 26, ACCENT if trial.status == "failed" else PALE, marker="x", zorder=3)
    axes.set_title("darker is better; arrows: weights copied from another member; red: descent of the best", fontsize=8)
    axes.set(ylabel="member")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.invert_yaxis()


def _members(trials: dict[int, TrialRow]) -> dict[int, tuple[int, int]]:
    """The generation and the member of each trial."""
    generation: dict[int, int] = {}
    for number in sorted(trials):
        parent = trials[number].parent
        generation[number] = generation[parent] + 1 if parent in generation else 0
    places: dict[int, tuple[int, int]] = {}
    for column in range(max(generation.values()) + 1):
        taken: set[int] = set()
        own = [number for number in sorted(trials) if generation[number] == column]
        for number in sorted(own, key=lambda n: not _goes_on(trials, n)):
            parent = trials[number].parent
            row = places[parent][1] if parent in places else len(taken)
            if row in taken:
                row = next(free for free in range(len(trials)) if free not in taken)
            taken.add(row)
            places[number] = column, row
    return places


def _goes_on(trials: dict[int, TrialRow], number: int) -> bool:
    parent = trials[number].parent
    return parent in trials and dict(trials[parent].values) == dict(trials[number].values)


def wide(values: Sequence[float]) -> bool:
    """Whether values need a logarithmic axis."""
    return min(values) > 0 and math.log10(max(values) / min(values)) > WIDE


def bounds(values: Sequence[float], way: str, always: Sequence[float] = (), share: float = 0.25) -> tuple[float, float]:
    """The ends of an axis on which the better values can be distinguished; the worst may lie beyond it.

    From the best value, the axis goes twice as far as to where the worst `share` begins. It includes `always`.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    worst, best = (min, max) if way == "max" else (max, min)
    edge = float(np.quantile(finite, share if way == "max" else 1 - share))
    end = best(worst(finite), best(finite) + 2 * (edge - best(finite))) if edge != best(finite) else worst(finite)
    low, high = min(end, best(finite), *always), max(end, best(finite), *always)
    return (low, high) if low < high else (low - (abs(low) or 1) * 0.05, high + (abs(high) or 1) * 0.05)


def _scores(snapshot: SearchSnapshot, status: str) -> list[tuple[int, float]]:
    """Number and first objective of each trial of a status, if known; for stopped trials, the last value seen."""
    found = []
    for trial in snapshot.trials:
        value = trial.metrics.get(snapshot.objective, trial.curve[-1][1] if trial.curve else math.nan)
        if trial.status == status and math.isfinite(value):
            found.append((trial.number, value))
    return found


def _points(axes: Any, points: Sequence[tuple[float, float]], ends: tuple[float, float], style: dict[str, Any]) -> None:
    """Draw points; those beyond the ends of the axis become small triangles at its edge."""
    inside = [(x, y) for x, y in points if ends[0] <= y <= ends[1]]
    if inside:
        axes.scatter(*zip(*inside, strict=True), zorder=2, **style)
    for marker, y, xs in (
        ("v", ends[0], [x for x, y in points if y < ends[0]]),
        ("^", ends[1], [x for x, y in points if y > ends[1]]),
    ):
        if xs:
            axes.scatter(xs, [y] * len(xs), 22, PALE, marker=marker, label="beyond the axis", zorder=2)


def _best_so_far(axes: Any, points: Sequence[tuple[int, float]], way: str, last: int) -> None:
    if not points:
        return
    keep = np.maximum if way == "max" else np.minimum
    numbers, values = zip(*sorted(points), strict=True)
    best = keep.accumulate(values)
    axes.step(
        [*numbers, last], [*best, best[-1]], where="post", color=ACCENT, linewidth=1.6, label="best so far", zorder=3
    )


def _way(snapshot: SearchSnapshot, metric: str) -> str:
    return f"{metric} ({'higher' if snapshot.objectives[metric] == 'max' else 'lower'} is better)"


def _titled(axes: Any, **names: str) -> None:
    """Axis labels from users: a dollar sign does not begin a formula."""
    for what, name in names.items():
        getattr(axes, f"set_{what}")(name, parse_math=False, fontsize=9)
