"""What a search has found, as plain data: its trials, the front, and tables for a terminal and for a file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assay import fronts

NOT_USED = "n/a"
"""Shown for a parameter that does not count in a trial, because its condition does not hold."""
CURVE = 12  # most evaluations of a trial that a terminal shows
BLOCKS = "▁▂▃▄▅▆▇█"
MOST_BEST = 5  # trials listed as the best if there is one objective


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        status: `finished`, `stopped` (early, by a scheduler), `failed`, `over` (its network was over the limits and was
            not trained) or `running`.
        values: the searched keys that counted, as dotted names.
        metrics: such as `val/accuracy` and `cost/parameters`; those known so far if the trial did not finish.
        curve: (epoch, first objective), as seen during training.
        parent: in population-based training, the trial whose weights it started from.
    """

    number: int
    status: str
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    curve: Sequence[tuple[float, float]]
    seconds: float
    epochs: float
    reason: str = ""
    parent: int | None = None
    run_id: str = ""


@dataclass(frozen=True)
class SearchSnapshot:
    """A search and its trials at one moment.

    Attributes:
        objectives: metric names with `max` or `min`; curves, colours and importance are of the first.
        parameters: each searched key: `{"choices": [...]}`, or `{"low": …, "high": …, "log": bool}`.
        details: what else to show, in order, such as budget, dataset and commit. During the search, the headline shows
            `total` (the planned number of trials) and `time left`.
        baseline: metrics of the unchanged experiment, if known.
        fixed: keys that all trials set differently from the experiment.
    """

    name: str
    search_id: str
    experiment: str
    algorithm: str
    scheduler: str | None
    objectives: Mapping[str, str]
    parameters: Mapping[str, Mapping[str, Any]]
    trials: Sequence[TrialRow]
    details: Mapping[str, str]
    baseline: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def objective(self) -> str:
        """The first objective."""
        return next(iter(self.objectives))

    def count(self, *statuses: str) -> int:
        return sum(trial.status in statuses for trial in self.trials)


def ranked(
    trials: Iterable[TrialRow], objectives: Mapping[str, str], statuses: Collection[str] = ("finished",)
) -> list[TrialRow]:
    """The trials of these statuses that have all objectives, best first; equal ones by number."""
    rows, scores = _scored(trials, objectives, statuses)
    return [rows[place] for place in fronts.ranking(scores)]


def front(trials: Iterable[TrialRow], objectives: Mapping[str, str]) -> list[TrialRow]:
    """The finished trials that no other dominates (Pareto), best first by the first objective.

    Of trials with equal objectives, it keeps the lowest number; with one objective, it is just the best trial.
    """
    rows, scores = _scored(trials, objectives, ("finished",))
    return [rows[place] for place in fronts.front(scores)]


def _scored(
    trials: Iterable[TrialRow], objectives: Mapping[str, str], statuses: Collection[str]
) -> tuple[list[TrialRow], list[fronts.Scores]]:
    """The trials of these statuses that have all objectives, by number, and what `fronts` compares of them."""
    rows = sorted((t for t in trials if t.status in statuses), key=lambda t: t.number)
    scored = [(row, own) for row in rows if (own := fronts.gains(row.metrics, objectives)) is not None]
    return [row for row, _ in scored], [own for _, own in scored]


def winners(snapshot: SearchSnapshot) -> list[TrialRow]:
    """The front if there are several objectives; the five best trials if there is one."""
    if len(snapshot.objectives) > 1:
        return front(snapshot.trials, snapshot.objectives)
    return ranked(snapshot.trials, snapshot.objectives)[:MOST_BEST]


def short(keys: Iterable[str]) -> dict[str, str]:
    """Each dotted key by as few of its last parts as distinguish it from the others; never beginning with a number."""
    names = dict.fromkeys(keys, 1)
    while True:
        cut = {key: ".".join(key.split(".")[-parts:]) for key, parts in names.items()}
        counts: dict[str, int] = {}
        for name in cut.values():
            counts[name] = counts.get(name, 0) + 1
        more = [k for k, n in cut.items() if n != k and (counts[n] > 1 or not n or n[0].isdigit())]
        if not more:
            return cut
        for key in more:
            names[key] += 1


def text(value: Any) -> str:
    """A value for display: numbers to four figures, lists as JSON."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}" if abs(value) < 1e4 or abs(value) >= 1e9 else f"{value:.0f}"
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def summary(snapshot: SearchSnapshot) -> list[dict[str, Any]]:
    """The front, or the best five: `trial`, the objectives, the costs, and the searched keys in which they differ.

    Every row has the same keys; a parameter that does not count in a trial is `n/a`.
    """
    rows = winners(snapshot)
    costs = {m for t in rows for m in t.metrics if m.startswith("cost/")} - set(snapshot.objectives)
    keys = _differing(snapshot, rows)
    return [
        {"trial": t.number}
        | {metric: t.metrics.get(metric) for metric in [*snapshot.objectives, *sorted(costs)]}
        | {key: t.values.get(key, NOT_USED) for key in keys}
        for t in rows
    ]


def table_csv(snapshot: SearchSnapshot) -> bytes:
    """All trials, one row each, in UTF-8: numbers in full, lists as JSON, empty cells for missing values."""
    metrics = columns(snapshot)
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    head = ["number", "status", "run_id", "parent", "epochs", "seconds", "reason"]
    writer.writerow([*head, *metrics, *snapshot.parameters])
    for t in snapshot.trials:
        own = [t.number, t.status, t.run_id, t.parent, round(t.epochs, 4), round(t.seconds, 3), t.reason]
        values = [_cell(t.values[key]) if key in t.values else "" for key in snapshot.parameters]
        writer.writerow([*own, *(t.metrics.get(metric, "") for metric in metrics), *values])
    return out.getvalue().encode()


def columns(snapshot: SearchSnapshot) -> list[str]:
    """All metrics that any trial has, the objectives first."""
    others = {metric for trial in snapshot.trials for metric in trial.metrics} - set(snapshot.objectives)
    return [*snapshot.objectives, *sorted(others)]


def line(snapshot: SearchSnapshot) -> str:
    """The progress of a search in one line."""
    parts = [f"{snapshot.count('finished', 'stopped', 'failed')}{_of(snapshot)} trials done"]
    parts += [f"{n} {status}" for status in ("stopped", "over", "failed", "running") if (n := snapshot.count(status))]
    best = front(snapshot.trials, snapshot.objectives)
    if len(snapshot.objectives) > 1 and best:
        parts.append(f"{len(best)} on the front")
    if best:
        parts.append(f"best {snapshot.objective} {text(best[0].metrics[snapshot.objective])} (trial {best[0].number})")
    if "time left" in snapshot.details:
        parts.append(f"{snapshot.details['time left']} left")
    return f"{snapshot.name}: {', '.join(parts)}"


def live(snapshot: SearchSnapshot) -> Any:
    """The progress of a search as a Rich renderable for a terminal: a headline, the best and the running trials."""
    from rich.console import Group
    from rich.text import Text

    best = winners(snapshot)[:MOST_BEST]
    running = [trial for trial in snapshot.trials if trial.status == "running"]
    parts: list[Any] = [Text(line(snapshot), style="bold")]
    if best:
        metrics = [
            *snapshot.objectives,
            *(m for m in columns(snapshot) if m.startswith("cost/") and m in best[0].metrics),
        ]
        parts.append(_table(snapshot, "best", best, list(dict.fromkeys(metrics))))
    if running:
        parts.append(_table(snapshot, "running", running, []))
    return Group(*parts)


def _table(snapshot: SearchSnapshot, title: str, trials: Sequence[TrialRow], metrics: Sequence[str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    names = short(snapshot.parameters)
    differ = _differing(snapshot, trials)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in (title, *(metrics or [snapshot.objective]), "epochs"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("curve", no_wrap=True)
    table.add_column("values")
    for t in trials:
        seen = [text(t.metrics[m]) if m in t.metrics else "" for m in metrics]
        latest = [text(float(t.curve[-1][1])) if t.curve else ""]
        values = " ".join(f"{names[key]}={text(t.values[key])}" for key in differ if key in t.values)
        cells = [str(t.number), *(seen if metrics else latest), text(t.epochs), spark([v for _, v in t.curve])]
        table.add_row(*map(Text, cells), Text(values, no_wrap=True, overflow="ellipsis"))
    return table


def spark(values: Sequence[float]) -> str:
    """The last values of a curve, one character each, scaled from the lowest to the highest of them."""
    shown = [value for value in values if math.isfinite(value)][-CURVE:]
    low, span = min(shown, default=0.0), max(shown, default=0.0) - min(shown, default=0.0)
    return "".join(BLOCKS[round((value - low) / span * (len(BLOCKS) - 1)) if span else 0] for value in shown)


def _of(snapshot: SearchSnapshot) -> str:
    return f" of {snapshot.details['total']}" if "total" in snapshot.details else ""


def _differing(snapshot: SearchSnapshot, trials: Sequence[TrialRow]) -> list[str]:
    """The searched keys in which trials differ; all keys if there is only one trial."""
    seen = {key: {json.dumps(t.values.get(key, NOT_USED), default=str) for t in trials} for key in snapshot.parameters}
    return [key for key, values in seen.items() if len(trials) == 1 or len(values) > 1]


def _cell(value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number or isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
