"""Dataset versions: exact, deterministic, with copies in one split, and never half written."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.config.card import Card, SplitConfig
from assay.config.dataset import DatasetConfig
from assay.data.dataset import open_dataset, prepare
from assay.data.images import ImageFacts, decode
from assay.data.pack import Packed
from assay.data.raw import folder_digest
from assay.data.samples import Sample, Scan
from assay.data.split import split_samples
from assay.data.version import folder_hash
from assay.errors import InputError
from assay.usecases.check_data import check_dataset
from tests.support.bad_images import CLASSES, make_folder


def config(folder: Path, **more: Any) -> DatasetConfig:
    source = {"kind": "image_folder", "path": str(folder), "sha256": folder_digest(folder)}
    return DatasetConfig.model_validate({"source": source, **more})


def make(root: Path, settings: DatasetConfig) -> Card:
    return prepare(root, "pets", settings, root / "data" / "pets", lambda *_: None)


def record(root: Path) -> None:
    """What `dvc commit` would leave behind."""
    found, _ = folder_hash(root / "data" / "pets", None)
    (root / "dvc.lock").write_text(
        f"schema: '2.0'\nstages:\n  data@pets:\n    cmd: x\n    outs:\n    - path: data/pets\n      md5: {found}\n"
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_thousand_images_of_which_fifty_are_bad(tmp_path: Path) -> None:
    started = time.monotonic()
    bad = make_folder(tmp_path / "raw", 950, 50)
    card = make(tmp_path, config(tmp_path / "raw"))
    assert sorted(item["file"] for item in card.rejected) == bad
    assert len(bad) == 50
    assert sum(card.samples.values()) == 950
    folder = tmp_path / "data" / "pets"
    names = [name for split in card.samples for name in Packed(folder, split).column("name").to_pylist()]
    assert len(set(names)) == 950
    assert not set(names) & set(bad)
    assert time.monotonic() - started < 20


def test_the_card_describes_the_train_split(tmp_path: Path) -> None:
    make_folder(tmp_path / "raw", 48, 0)
    card = make(tmp_path, config(tmp_path / "raw"))
    train = Packed(tmp_path / "data" / "pets", "train")
    pixels = [decode(bytes(train.image(i)), 3).reshape(3, -1) / 255 for i in range(len(train))]
    everything = np.concatenate(pixels, axis=1)
    assert np.allclose(card.mean, everything.mean(axis=1), atol=1e-12)
    assert np.allclose(card.std, everything.std(axis=1), atol=1e-12)
    assert (card.channels, card.min_size, card.max_size) == (3, [24, 24], [32, 32])
    assert card.short_side == 24
    assert {name: sum(c.values()) for name, c in card.counts.items()} == card.samples
    for split in card.samples:
        labels = Packed(tmp_path / "data" / "pets", split).column("label")
        assert [int((labels == i).sum()) for i in range(3)] == [card.counts[split][name] for name in CLASSES]


def test_the_same_folder_makes_the_same_bytes_and_the_seed_matters(tmp_path: Path) -> None:
    make_folder(tmp_path / "raw", 48, 5)
    settings = config(tmp_path / "raw")
    make(tmp_path, settings)
    first = tree(tmp_path / "data")
    shutil.copytree(tmp_path / "raw", tmp_path / "else" / "raw", symlinks=True)
    make(tmp_path, config(tmp_path / "else" / "raw"))
    assert tree(tmp_path / "data") == first
    make(tmp_path, settings.model_copy(update={"seed": 1}))
    assert tree(tmp_path / "data") != first


def sample(index: int, label: int, sha256: str) -> Sample:
    return Sample(f"s{index:03d}", (label,), sha256, ImageFacts("PNG", "L", 1, 1, 1, ()), lambda: b"")


def divided(samples: list[Sample], classes: list[str], split: SplitConfig, seed: int) -> dict[str, list[Sample]]:
    return split_samples(Scan(samples, classes, [], [], [], ""), split, seed).parts


def test_splits_keep_copies_together_and_ignore_order_and_names() -> None:
    samples = [sample(i, i % 2, f"{i // 4}-{i % 2}") for i in range(80)]  # each content twice
    parts = divided(samples, ["a", "b"], SplitConfig(), 0)
    where = {s.sha256: split for split, part in parts.items() for s in part}
    assert all(where[s.sha256] == split for split, part in parts.items() for s in part)
    assert {split: len(part) for split, part in parts.items()} == {"train": 56, "val": 8, "test": 16}
    renamed = [replace(s, name=f"x{i}") for i, s in enumerate(reversed(samples))]
    again = divided(renamed, ["a", "b"], SplitConfig(), 0)
    assert {s.sha256: split for split, part in again.items() for s in part} == where
    other = divided(samples, ["a", "b"], SplitConfig(), 1)
    assert {s.sha256: split for split, part in other.items() for s in part} != where


@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.2), (0.02, 0.02, 0.96), (0.98, 0.01, 0.01)])
def test_every_class_is_in_every_split(fractions: tuple[float, float, float]) -> None:
    split = SplitConfig(train=fractions[0], val=fractions[1], test=fractions[2])
    for count in range(3, 30):
        parts = divided([sample(i, 0, str(i)) for i in range(count)], ["a"], split, 0)
        assert all(parts.values())
    with pytest.raises(InputError, match="class 'a' has 2 distinct good images"):
        divided([sample(i, 0, str(i % 2)) for i in range(9)], ["a"], split, 0)


def test_a_failed_preparation_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "raw", 48, 0)
    settings = config(tmp_path / "raw")
    make(tmp_path, settings)
    before = tree(tmp_path / "data")

    def interrupt(done: int, total: int, what: str) -> None:
        if what == "packed" and done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, "pets", settings, tmp_path / "data" / "pets", interrupt)
    assert tree(tmp_path / "data") == before
    (tmp_path / "raw" / "apple" / "new.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"datasets\.pets: the folder .* changed .*: run `assay data add pets "):
        make(tmp_path, settings)
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(InputError, match="dvc pull data@pets"):
        make(tmp_path, settings)
    assert tree(tmp_path / "data") == before


def test_raw_data_are_never_replaced_by_packed_data(tmp_path: Path) -> None:
    make_folder(tmp_path / "data" / "pets", 48, 0)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="overlaps"):
        make(tmp_path, config(tmp_path / "data" / "pets"))
    assert tree(tmp_path) == before


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    make_folder(tmp_path / "raw", 48, 0)
    (tmp_path / "data" / ".pets.new-4194304").mkdir(parents=True)
    make(tmp_path, config(tmp_path / "raw"))
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["pets"]


def test_opening_says_what_is_wrong_and_how_to_fix_it(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "pets"

    def fails(pattern: str) -> None:
        with pytest.raises(InputError, match=pattern) as caught:
            open_dataset(tmp_path, "pets", folder)
        assert "\n" not in str(caught.value)

    fails("is not here: run `dvc repro data@pets` or `dvc pull data@pets`")
    make_folder(tmp_path / "raw", 48, 0)
    make(tmp_path, config(tmp_path / "raw"))
    fails("has no recorded version: run `dvc repro data@pets`")
    record(tmp_path)
    dataset = open_dataset(tmp_path, "pets", folder)
    assert len(dataset.split("val")) == dataset.card.samples["val"]
    with pytest.raises(InputError, match="unknown split"):
        dataset.split("vall")
    path = folder / "val-00000.arrow"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\1")
    fails(r"val-00000\.arrow is not the recorded one: run `dvc checkout data@pets`")
    path.unlink()
    fails(r"val-00000\.arrow is missing")
    path.write_bytes(good)
    open_dataset(tmp_path, "pets", folder)
    card = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(card.replace('"pets"', '"pots"'))
    fails(r"dataset\.json is not the recorded one")
    (folder / "dataset.json").write_text(card[:-9])
    fails(r"dataset\.json is damaged")


def test_check_reads_everything(tmp_path: Path) -> None:
    make_folder(tmp_path / "raw", 48, 0)
    settings = config(tmp_path / "raw")
    make(tmp_path, settings)
    record(tmp_path)
    folder = tmp_path / "data" / "pets"
    result = check_dataset(tmp_path, "pets", settings, folder, lambda *_: None)
    assert (result["ok"], result["problems"], result["warnings"]) == (True, [], [])
    path = folder / "test-00000.arrow"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"IHDR", b"IHDX"))
    (tmp_path / "raw" / "apple" / "more.png").write_bytes(b"")
    result = check_dataset(tmp_path, "pets", settings, folder, lambda *_: None)
    assert not result["ok"]
    assert "test-00000.arrow" in result["problems"][0]
    assert len(result["problems"]) > 1
    assert "has changed since it was added" in result["warnings"][0]
    shutil.rmtree(tmp_path / "raw")
    result = check_dataset(tmp_path, "pets", settings, folder, lambda *_: None)
    assert "is missing" in result["warnings"][0]
