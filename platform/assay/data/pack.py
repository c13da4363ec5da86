"""Packed splits: a few Arrow IPC files instead of many small images, read by memory map.

A split is one file `<split>-all.arrow` or, if it is large, several `<split>-<bits>.arrow`, each with the images whose
identities begin with these bits (`assay.data.shards`). Columns are `name`, `identity` (the first 16 bytes), `image` (an
encoded image), `width`, `height` (pixels) and those of the annotation (`assay.data.annotations`). Rows are sorted by
identity, then name. The bytes depend only on the rows.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.errors import InputError

BATCH_ROWS = 256
BATCH_BYTES = 64 * 2**20
UNDIVIDED = "all"
"""In the name of a split's only file, in place of bits."""
IDENTITY_BYTES = 16
"""Of an image's identity, as many leading bytes are kept: enough to tell any two images apart."""

_BASE = [
    pa.field("name", pa.string()),
    pa.field("identity", pa.binary(IDENTITY_BYTES)),
    pa.field("image", pa.binary()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
]


class Packer:
    """Writes one shard row by row, with at most one record batch in memory. Use it in a `with` block."""

    def __init__(self, folder: Path, split: str, bits: str, extra: pa.Schema):
        """Begin `<split>-<bits>.arrow`; without rows, it is a file without rows. `extra`: the annotation's columns."""
        self._schema = pa.schema([*_BASE, *extra])
        self._rows: list[Mapping[str, Any]] = []
        self._row_bytes = 0
        self._file = pa.OSFile(str(folder / f"{split}-{bits or UNDIVIDED}.arrow"), "wb")
        self._writer = pa.ipc.new_file(self._file, self._schema)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row with a value for every column; `image` is bytes."""
        self._rows.append(row)
        self._row_bytes += len(row["image"])
        if len(self._rows) >= BATCH_ROWS or self._row_bytes >= BATCH_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows, self._row_bytes = [], 0

    def __enter__(self) -> Packer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


class Packed:
    """Random access to a packed split. Safe to use from several threads; pickles as its path, not its content."""

    def __init__(self, folder: Path, split: str, files: Sequence[str] | None = None):
        """Map the files of a split, or only these of them.

        Arrow trusts what it reads, so that a damaged file can end the process: compare it with its hash before.

        Raises:
            InputError: there are none, or one is not an Arrow file.
        """
        self.folder = folder
        self.split = split
        self._files = files
        self._maps: list[pa.MemoryMappedFile] = []
        self._batches: list[pa.RecordBatch] = []
        names = sorted(files) if files else sorted(path.name for path in folder.glob(f"{split}-*.arrow"))
        if not names:
            raise InputError(f"{folder}: has no split {split!r}")
        for name in names:
            self._map(folder / name)
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + batch.num_rows)

    def _map(self, path: Path) -> None:
        try:
            mapped = pa.memory_map(str(path))
            self._maps.append(mapped)
            reader = pa.ipc.open_file(mapped)
            self._schema = reader.schema
            self._batches += [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (pa.ArrowInvalid, OSError) as error:
            self.close()
            detail = " ".join(str(error).split())
            raise InputError(f"{path}: damaged ({detail}): run `dvc checkout data@{path.parent.name}`") from None

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def columns(self) -> list[str]:
        return list(self._schema.names)

    def fits(self, extra: pa.Schema) -> bool:
        """Whether the columns are those of every split plus `extra`, in name and type."""
        return bool(self._schema.equals(pa.schema([*_BASE, *extra])))

    def column(self, name: str) -> Any:
        """All values of a column: a numpy array if they are plain numbers, else a `pa.ChunkedArray`."""
        kind = self._schema.field(name).type
        parts = [batch.column(name) for batch in self._batches] or [pa.nulls(0, kind)]
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return np.concatenate([numbers(part) for part in parts])
        return pa.chunked_array(parts, type=kind)

    def image(self, index: int) -> memoryview:
        """The encoded image of a row, without a copy. It stays valid for as long as you keep it."""
        batch, row = self._find(index)
        return memoryview(batch.column("image")[row].as_buffer())

    def row(self, index: int) -> dict[str, Any]:
        """All columns of a row except the image, as plain values."""
        batch, row = self._find(index)
        return {name: batch.column(name)[row].as_py() for name in self.columns if name != "image"}

    def _find(self, index: int) -> tuple[pa.RecordBatch, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.split}: no sample {index} of {len(self)}")
        batch = bisect.bisect_right(self._starts, index) - 1
        return self._batches[batch], index - self._starts[batch]

    def close(self) -> None:
        """Release the files. Images that are still in use stay valid."""
        self._batches = []
        self._starts = [0]
        for mapped in self._maps:
            mapped.close()
        self._maps = []

    def __enter__(self) -> Packed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Packed], tuple[Path, str, Sequence[str] | None]]:
        return Packed, (self.folder, self.split, self._files)


def numbers(values: pa.Array) -> NDArray[Any]:
    """A column of numbers without nulls, as a numpy array. Arrow's own conversion imports pandas, which takes 1 s."""
    found: NDArray[Any] = np.from_dlpack(values)
    return found
