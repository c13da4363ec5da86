"""Pictures for people, as PNG bytes: drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERS = 25  # classes up to which a confusion matrix shows its numbers


def confusion(table: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """A confusion matrix [K, K]: rows are the actual classes, columns the predicted; shaded by the share of the row."""
    side = min(4 + 0.35 * len(classes), 16)
    figure, axes = _figure(side, side)
    shares = [[n / max(sum(row), 1) for n in row] for row in table]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="actual")
    if len(classes) <= MOST_NUMBERS:
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(len(classes)), classes, parse_math=False)
        for i, row in enumerate(table):
            for j, number in enumerate(row):
                if number:
                    axes.text(j, i, number, ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black")
    right, total = sum(table[i][i] for i in range(len(classes))), sum(map(sum, table))
    axes.set_title(f"{right} of {total} right ({right / max(total, 1):.2%})")
    return _png(figure)


def curves(series: Mapping[str, Sequence[tuple[int, float]]]) -> bytes:
    """Metrics by step, `train/loss` and `val/loss` in one panel: one panel for each name behind the slash."""
    panels: dict[str, dict[str, Sequence[tuple[int, float]]]] = {}
    for name, points in series.items():
        split, _, metric = name.partition("/")
        panels.setdefault(metric, {})[split] = points
    figure, _ = _figure(4.5 * len(panels), 3.5)
    figure.clear()
    for number, (metric, lines) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), number)
        for split, points in lines.items():
            axes.plot(*zip(*points, strict=True), label=split)
        axes.set(xlabel="step", title=metric)
        axes.legend()
        axes.grid(alpha=0.3)
    return _png(figure)


def _figure(width: float, height: float):  # type: ignore[no-untyped-def]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
