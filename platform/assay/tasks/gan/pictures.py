"""Sheets of images, enlarged so that small ones can be seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assay.data.images import encode

SIDE = 32  # pixels a side at least, on a sheet
GAP = 2

Bytes = NDArray[np.uint8]


def sheet(cells: Bytes, split: int | None = None) -> bytes:
    """A PNG of images [rows, columns, C, S, S], a pixel row of white between them; `split`: a wider gap before that
    column, such as between generated and real ones.
    """
    rows, columns, channels, side, _ = cells.shape
    times = -(-SIDE // side)
    large = cells.repeat(times, axis=3).repeat(times, axis=4)
    step, wide = side * times + GAP, 4 * GAP if split is not None else 0
    board = np.full((rows * step + GAP, columns * step + GAP + wide, channels), 255, dtype=np.uint8)
    for row in range(rows):
        for column in range(columns):
            left = GAP + column * step + (wide if split is not None and column >= split else 0)
            image = large[row, column].transpose(1, 2, 0)
            board[GAP + row * step : (row + 1) * step, left : left + side * times] = image
    return encode(board.transpose(2, 0, 1))
