"""Pictures as PNG bytes, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = np.ndarray[Any, Any]

CELL = 96  # pixels a side that small images in a grid are enlarged to, at least
MOST_NUMBERS = 25  # most classes for which a confusion matrix shows its numbers


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
    """Metrics by step, one panel for each name after the slash: `train/loss` and `val/loss` share one."""
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


def bars(groups: Mapping[str, Sequence[float]], names: Sequence[str]) -> bytes:
    """Values in 0..1 for each name, one bar per group, such as precision, recall and F1 of each class."""
    figure, axes = _figure(6, min(1.5 + 0.12 * len(names) * (len(groups) + 1), 40))
    places = np.arange(len(names))
    height = 0.8 / len(groups)
    for number, (label, values) in enumerate(groups.items()):
        axes.barh(places + (number - (len(groups) - 1) / 2) * height, values, height, label=label)
    axes.set_yticks(places, names, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(groups))
    return _png(figure)


def reliability(confidence: Sequence[float], accuracy: Sequence[float], share: Sequence[float]) -> bytes:
    """How sure a model is against how often it is right, and the share of the samples, for each bin.

    All values are in 0..1; a well-calibrated model lies on the diagonal.
    """
    figure, axes = _figure(4.5, 4.5)
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    axes.bar(confidence, share, width=0.04, color="lightgrey", label="share of the samples")
    axes.plot(confidence, accuracy, marker="o", label="right")
    axes.set(xlabel="probability of the answer", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="upper left")
    return _png(figure)


def grid(images: Sequence[Pixels], captions: Sequence[str], columns: int) -> bytes:
    """Images in rows of `columns`, each with its caption (of one or more lines) below; pixels stay square.

    Args:
        images: uint8 [H, W] grey or [H, W, 3] RGB, of any sizes.
        captions: one per image; if all are empty, they take no room.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    gap, line = 6, 15
    side = max((max(image.shape[:2]) for image in images), default=1)
    cell, below = side * -(-CELL // side), line * max((c.count("\n") + 1 for c in captions if c), default=0)
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    height, width = rows * (cell + below + gap) + gap, columns * (cell + gap) + gap
    sheet = np.full((height, width, 3), 255, dtype=np.uint8)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    FigureCanvasAgg(figure)
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, columns)
        top, left = gap + row * (cell + below + gap), gap + column * (cell + gap)
        colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        scale = cell // max(image.shape[:2])
        large = colour.repeat(scale, axis=0).repeat(scale, axis=1)
        down, right = (cell - large.shape[0]) // 2, (cell - large.shape[1]) // 2
        sheet[top + down :, left + right :][: large.shape[0], : large.shape[1]] = large
        x, y = (left + cell / 2) / width, 1 - (top + cell + 2) / height
        figure.text(x, y, caption, ha="center", va="top", fontsize=7, parse_math=False)
    figure.figimage(sheet)
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
