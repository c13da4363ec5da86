"""Pictures are PNGs that open, whatever the numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from assay.report.pictures import confusion, curves


def opened(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("classes", [1, 2, 10, 26])
def test_a_confusion_matrix_is_drawn(classes: int) -> None:
    names = [f"class {i}" for i in range(classes)]
    right = np.eye(classes, dtype=int) * 5
    wrong = np.roll(right, 1, axis=1)
    pictures = [opened(confusion(table.tolist(), names)) for table in (right, wrong, right * 0)]
    assert pictures[0].std() > 5
    assert pictures[0].shape == pictures[1].shape
    assert classes == 1 or (pictures[0] != pictures[1]).any()
    assert (pictures[0] != pictures[2]).any()


def test_a_confusion_matrix_is_shaded_by_the_share_of_the_row() -> None:
    """A rare class is as visible as a frequent one: the diagonal is dark in both rows."""
    picture = opened(confusion([[1000, 0], [0, 1]], ["many", "few"]))
    dark = (picture[..., 2] - picture[..., 0] > 60) & (picture.sum(-1) < 300)  # the end of the blue scale
    height, width = dark.shape
    halves = [dark[: height // 2, : width // 2].sum(), dark[height // 2 :, width // 2 :].sum()]
    assert min(halves) > 0.3 * max(halves) > 0


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")
def test_names_may_be_anything() -> None:
    opened(confusion([[1, 0], [0, 1]], ["$_{$", "Größe 大"]))


def test_curves_have_a_panel_for_each_metric() -> None:
    one = {"train/loss": [(1, 2.0), (2, 1.0)], "val/loss": [(2, 1.5)]}
    two = one | {"val/accuracy": [(2, 0.5)]}
    assert opened(curves(two)).shape[1] == 2 * opened(curves(one)).shape[1]


def test_the_same_numbers_make_the_same_bytes() -> None:
    series = {"train/loss": [(1, 2.0), (2, 1.0)]}
    assert curves(series) == curves(series)
