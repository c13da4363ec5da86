"""Packed splits: what goes in comes out, the same rows make the same bytes, and nothing is copied."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from assay.data.annotations import KINDS
from assay.data.pack import Packed, Packer
from assay.errors import InputError


def write(folder: Path, rows: int, shards: Sequence[str] = ("",)) -> list[bytes]:
    """As many shards of equal length; the identity of a row is its number."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = [rng.bytes(int(rng.integers(1, 300))) for _ in range(rows)]
    for shard, bits in enumerate(shards):
        with Packer(folder, "train", bits, KINDS["class"].schema) as packer:
            for index in range(shard * rows // len(shards), (shard + 1) * rows // len(shards)):
                values = {"name": f"n{index}", "identity": index.to_bytes(16, "big"), "image": images[index]}
                packer.add({**values, "width": index, "height": 2, "label": index % 7})
    return images


@pytest.mark.parametrize(
    ("rows", "shards"), [(0, [""]), (1, [""]), (256, ["0", "1"]), (1000, ["00", "010", "011", "1"])]
)
def test_rows_come_back_in_the_order_of_the_bits(tmp_path: Path, rows: int, shards: list[str]) -> None:
    images = write(tmp_path / "a", rows, shards)
    with Packed(tmp_path / "a", "train") as packed:
        names = [f"train-{bits or 'all'}.arrow" for bits in shards]
        assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
        assert len(packed) == rows
        assert packed.column("identity").to_pylist() == [index.to_bytes(16, "big") for index in range(rows)]
        assert len(Packed(tmp_path / "a", "train", names[:1])) == rows // len(shards)
        assert [bytes(packed.image(index)) for index in range(rows)] == images
        assert packed.column("label").tolist() == [index % 7 for index in range(rows)]
        assert packed.column("label").dtype == np.int32
        assert packed.column("name").to_pylist() == [f"n{index}" for index in range(rows)]
        with pytest.raises(IndexError):
            packed.image(rows)


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a", 700)
    write(tmp_path / "b", 700)
    name = "train-all.arrow"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_images_outlive_the_reader_and_readers_pickle(tmp_path: Path) -> None:
    images = write(tmp_path / "a", 300)
    packed = Packed(tmp_path / "a", "train")
    view = packed.image(299)
    again = pickle.loads(pickle.dumps(packed))
    packed.close()
    assert bytes(view) == images[299] == bytes(again.image(299))
    again.close()


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a", 10)
    with pytest.raises(InputError, match="no split 'val'"):
        Packed(tmp_path / "a", "val")
    path = tmp_path / "a" / "train-all.arrow"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"train-all\.arrow: damaged"):
        Packed(tmp_path / "a", "train")
