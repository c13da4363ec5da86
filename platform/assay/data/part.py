"""A dataset version of which one split shows only some of its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.data.dataset import Dataset
from assay.data.pack import Packed


@dataclass
class Part(Dataset):
    """`rows`, int64, are what is left of the split `of`. The card remains that of the whole version."""

    of: str
    rows: NDArray[np.int64]

    def split(self, name: str) -> Packed:
        whole = super().split(name)
        return _Rows(whole, self.rows) if name == self.of else whole


def part_of(dataset: Dataset, split: str, rows: NDArray[np.int64]) -> Part:
    return Part(**vars(dataset), of=split, rows=rows)


class _Rows(Packed):
    """Some rows of a packed split, under numbers of their own."""

    def __init__(self, whole: Packed, rows: NDArray[np.int64]) -> None:
        self.folder, self.split = whole.folder, whole.split
        self._whole, self._rows = whole, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def columns(self) -> list[str]:
        return self._whole.columns

    def fits(self, extra: pa.Schema) -> bool:
        return self._whole.fits(extra)

    def column(self, name: str) -> Any:
        values = self._whole.column(name)
        return values[self._rows] if isinstance(values, np.ndarray) else values.take(pa.array(self._rows))

    def image(self, index: int) -> memoryview:
        return self._whole.image(int(self._rows[index]))

    def row(self, index: int) -> dict[str, Any]:
        return self._whole.row(int(self._rows[index]))

    def close(self) -> None:
        self._whole.close()

    def __reduce__(self) -> tuple[type[Packed], tuple[Any, ...]]:
        return _Rows, (self._whole, self._rows)
