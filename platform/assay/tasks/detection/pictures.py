"""Pictures of an evaluation, for people: boxes on images, precision against recall, a table by class."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from assay.networks.libraries import import_torchvision
from assay.report.pictures import grid
from assay.task import Picture, Source
from assay.tasks.detection.metrics import Rows, Scores

ACTUAL, FOUND = "limegreen", "darkorange"
SHOWN = 8
MOST_NAMES = 20  # classes up to which the curves have a legend
SIDE = 320
"""Pixels that the longer side of a drawn image has at least."""


def draw(image: Tensor, actual: Tensor, found: Tensor, classes: Sequence[str]) -> Tensor:
    """uint8 [3, H, W], enlarged if small.

    Args:
        image: [C, H, W], 0 to 255.
        actual: [n, 5]: x1, y1, x2, y2 in its pixels, class. Drawn green.
        found: [m, 6]: x1, y1, x2, y2, score, class. Drawn orange, with class and score in percent.
    """
    import_torchvision()
    from torchvision.utils import draw_bounding_boxes

    factor = max(1, -(-SIDE // max(image.shape[1:])))
    large = F.interpolate(image[None].float(), scale_factor=float(factor), mode="nearest")[0]
    canvas = large.clamp(0, 255).to(torch.uint8).expand(3, -1, -1).contiguous()
    limit = torch.tensor([canvas.shape[2], canvas.shape[1]] * 2) - 1.0
    layers = [
        (actual[:, :4], [""] * len(actual), ACTUAL),
        (found[:, :4], [f"{classes[int(row[5])]} {100 * row[4]:.0f}" for row in found], FOUND),
    ]
    for boxes, labels, colour in layers:
        if len(boxes):
            placed = torch.minimum(boxes.float() * factor, limit)
            canvas = draw_bounding_boxes(canvas, placed, labels, colors=colour, width=2)
    return canvas


def scenes(
    source: Source,
    truth: Rows,
    detections: Rows,
    classes: Sequence[str],
    threshold: float,
) -> Picture | None:
    """Half of the images shown have the most mistakes, half are spread over the split. None if it has no image."""
    if not len(source):
        return None
    detections = detections[detections[:, 5] >= threshold]
    of_image = [(truth[truth[:, 0] == i], detections[detections[:, 0] == i]) for i in range(len(source))]
    counts = np.array([_mistakes(*rows) for rows in of_image])
    worst = np.argsort(-counts, kind="stable")[: SHOWN // 2].tolist()
    spread = [i for i in np.linspace(0, len(source) - 1, SHOWN).round().astype(int).tolist() if i not in worst]
    images, captions = [], []
    for index in dict.fromkeys([*worst, *spread[: SHOWN // 2]]):
        batch = source.load(np.array([index]), None)
        scale = float(batch["scale"][0])
        actual, found = (torch.from_numpy(rows.copy()) for rows in of_image[index])
        actual, found = actual[:, 1:6], found[:, 1:]
        actual[:, :4] *= scale
        found[:, :4] *= scale
        images.append(draw(batch["image"][0], actual, found, classes).permute(1, 2, 0).numpy())
        captions.append(f"{index}: {counts[index]} wrong")
    return Picture("boxes", grid(images, captions, columns=4))


def _mistakes(truth: Rows, detections: Rows) -> int:
    """Boxes of an image that were missed, and detections that hit nothing, at IoU .5."""
    import_torchvision()
    from torchvision.ops import box_iou

    if not len(truth) or not len(detections):
        return int((truth[:, 6] == 0).sum()) + len(detections)
    overlap = box_iou(torch.from_numpy(truth[:, 1:5]), torch.from_numpy(detections[:, 1:5]))
    hit = (overlap >= 0.5) & torch.from_numpy(truth[:, 5, None] == detections[None, :, 6])
    ignored = torch.from_numpy(truth[:, 6] == 1)
    return int((~hit.any(1) & ~ignored).sum()) + int((~hit.any(0)).sum())


def precision_recall(scores: Scores) -> Picture:
    """A curve for each class with a box, at IoU .5; the table lists how well each class is found."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, precision in scores.precision.items():
        axes.plot(np.linspace(0, 1, len(precision)), precision, label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.set_title(f"IoU .5: mean of average precision {scores.metrics['map_50']:.3f}")
    axes.grid(alpha=0.3)
    if 0 < len(scores.precision) <= MOST_NAMES:
        for text in axes.legend(loc="lower left").get_texts():
            text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return Picture("precision_recall", buffer.getvalue(), scores.classes)
