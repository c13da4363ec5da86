"""Dataset versions: exact, deterministic, with copies in one split, and never half written."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assay.config.card import Card, SplitConfig
from assay.config.dataset import DatasetConfig
from assay.data import dataset as dataset_module
from assay.data.dataset import Dataset, open_dataset, prepare, read_card, seen_identities
from assay.data.images import ImageFacts, decode
from assay.data.pack import Packed
from assay.data.raw import folder_digest
from assay.data.report import read_report
from assay.data.samples import Sample, Scan
from assay.data.split import split_samples
from assay.data.version import folder_hash, identity_of
from assay.errors import InputError, WorkError
from assay.owner import Owner
from assay.usecases.check_data import check_dataset
from tests.support.bad_images import CLASSES, encoded, make_folder, noise


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
    folder = tmp_path / "data" / "pets"
    report = read_report(folder, card)
    assert sorted(item["file"] for item in report.rejected) == bad
    assert (len(bad), card.rejected.count, len(card.rejected.first)) == (50, 50, 20)
    assert (card.rejected.first, card.converted.first) == (report.rejected[:20], report.converted[:20])
    assert card.converted.count == len(report.converted) > 300
    assert (folder / "dataset.json").stat().st_size < 10_000
    assert sum(card.samples.values()) == 950
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


def sample(index: int, label: int, content: str) -> Sample:
    facts = ImageFacts("PNG", "L", 1, 1, 1, (), hashlib.sha256(content.encode()).digest(), 1)
    return Sample(f"s{index:03d}", (label,), facts, lambda: b"")


def divided(samples: list[Sample], classes: list[str], split: SplitConfig, seed: int) -> dict[str, list[Sample]]:
    return split_samples(Scan(samples, classes, [], [], [], ""), split, seed).parts


def test_splits_keep_copies_together_and_ignore_order_and_names() -> None:
    samples = [sample(i, i % 2, f"{i // 4}-{i % 2}") for i in range(80)]  # each content twice
    parts = divided(samples, ["a", "b"], SplitConfig(), 0)
    where = {s.identity: split for split, part in parts.items() for s in part}
    assert all(where[s.identity] == split for split, part in parts.items() for s in part)
    sizes = [len(part) for part in parts.values()]
    assert sum(sizes) == 80
    assert all(size > 0 and size % 2 == 0 for size in sizes)
    renamed = [replace(s, name=f"x{i}") for i, s in enumerate(reversed(samples))]
    again = divided(renamed, ["a", "b"], SplitConfig(), 0)
    assert {s.identity: split for split, part in again.items() for s in part} == where
    other = divided(samples, ["a", "b"], SplitConfig(), 1)
    assert {s.identity: split for split, part in other.items() for s in part} != where


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
    gone = replace(Owner.here(), started=1).label
    (tmp_path / "data" / f".pets.new-{gone}.0123abcd").mkdir(parents=True)
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
    path = folder / "val-all.arrow"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\1")
    fails(r"val-all\.arrow is not the recorded one: run `dvc checkout data@pets`")
    path.unlink()
    fails(r"val-all\.arrow is missing")
    path.write_bytes(good)
    open_dataset(tmp_path, "pets", folder)
    card = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(card.replace('"pets"', '"pots"'))
    fails(r"dataset\.json is not the recorded one")
    (folder / "dataset.json").write_text(card[:-9])
    fails(r"dataset\.json is damaged: run")
    (folder / "dataset.json").write_text(card.replace('"samples"', '"images"'))
    fails(r"damaged or of another version of Assay \(2 faults\): .* `dvc repro --force data@pets`")


def test_check_reads_everything(tmp_path: Path) -> None:
    make_folder(tmp_path / "raw", 48, 0)
    settings = config(tmp_path / "raw")
    make(tmp_path, settings)
    record(tmp_path)
    folder = tmp_path / "data" / "pets"
    result = check_dataset(tmp_path, "pets", settings, folder, lambda *_: None)
    assert (result["ok"], result["problems"], result["warnings"]) == (True, [], [])
    path = folder / "test-all.arrow"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"IHDR", b"IHDX"))
    (tmp_path / "raw" / "apple" / "more.png").write_bytes(b"")
    result = check_dataset(tmp_path, "pets", settings, folder, lambda *_: None)
    assert not result["ok"]
    assert len(result["problems"]) == 1
    assert "test-all.arrow is not the recorded one" in result["problems"][0]

    # Recorded as they are, files are read: each damaged image is named, and a split without a file.
    card = read_card(folder, "pets")
    (folder / "val-all.arrow").unlink()
    files = folder_hash(folder, None)[1]
    files.pop("dataset.json")
    (folder / "dataset.json").write_text(card.model_copy(update={"files": files}).model_dump_json())
    record(tmp_path)
    result = check_dataset(tmp_path, "pets", settings, folder, lambda *_: None)
    assert len(result["problems"]) == content.count(b"IHDR") + 1
    assert result["problems"][0] == f"val: no file for its {card.samples['val']} samples"
    assert "damaged or truncated PNG" in result["problems"][1]
    assert "has changed since it was added" in result["warnings"][0]
    shutil.rmtree(tmp_path / "raw")
    result = check_dataset(tmp_path, "pets", settings, folder, lambda *_: None)
    assert "is missing" in result["warnings"][0]


@pytest.mark.parametrize("recorded", [True, False])
def test_every_damage_of_a_packed_file_is_named_and_none_is_read(tmp_path: Path, recorded: bool) -> None:
    """Arrow trusts what it maps: of such files, 26 of 120 ended the process that checked them."""
    make_folder(tmp_path / "raw", 24, 0)
    settings = config(tmp_path / "raw")
    make(tmp_path, settings)
    if recorded:
        record(tmp_path)
    folder = tmp_path / "data" / "pets"
    path = folder / "train-all.arrow"
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    named = 0
    for attempt in range(120):
        damaged = bytearray(good)
        if attempt % 2:
            del damaged[int(rng.integers(len(good))) :]
        else:
            damaged[int(rng.integers(len(good)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        result = check_dataset(tmp_path, "pets", settings, folder, lambda *_: None)
        named += sum("train-all.arrow is not the recorded one" in line for line in result["problems"])
        assert len(result["problems"]) == 1 + (not recorded)
    assert named == 120


def test_under_another_card_nothing_is_read(tmp_path: Path) -> None:
    make_folder(tmp_path / "raw", 24, 0)
    settings = config(tmp_path / "raw")
    make(tmp_path, settings)
    record(tmp_path)
    folder = tmp_path / "data" / "pets"
    path = folder / "dataset.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    (folder / "train-all.arrow").write_bytes(b"")
    result = check_dataset(tmp_path, "pets", settings, folder, lambda *_: None)
    assert [line.split(": ")[1] for line in result["problems"]] == ["dataset.json is not the recorded one"]


def test_one_new_image_changes_one_shard_or_divides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "SHARD_BYTES", 15_000)
    rng = np.random.default_rng(1)
    for index in range(200):
        path = tmp_path / "raw" / CLASSES[index % 2] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(noise(rng)), "PNG"))  # about 2,400 bytes
    card = make(tmp_path, config(tmp_path / "raw"))
    before = tree(tmp_path / "data" / "pets")
    assert len(before) > 30
    assert all(len(content) < 2 * 15_000 for content in before.values())
    counts = []
    for index in range(8):
        (tmp_path / "raw" / "apple" / f"new-{index}.png").write_bytes(encoded(Image.fromarray(noise(rng)), "PNG"))
        card = make(tmp_path, config(tmp_path / "raw"))
        after = tree(tmp_path / "data" / "pets")
        written = {file for file, content in after.items() if before.get(file) != content} - {"dataset.json"}
        counts.append(len(written))
        assert len(before.keys() - after.keys()) == (len(written) == 2)
        before = after
    assert set(counts) == {1, 2}
    for split, count in card.samples.items():
        packed = Packed(tmp_path / "data" / "pets", split)
        rows = [(packed.row(i)["identity"], packed.row(i)["name"]) for i in range(len(packed))]
        assert len(rows) == count
        assert rows == sorted(rows)


def test_an_image_and_all_its_copies_share_a_shard_however_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "SHARD_BYTES", 1)
    make_folder(tmp_path / "raw", 24, 0)
    for path in sorted((tmp_path / "raw").rglob("*.png")):
        for index in range(3):
            shutil.copyfile(path, path.with_name(f"{path.stem}-{index}.png"))
    card = make(tmp_path, config(tmp_path / "raw"))
    files = [file for file in card.files if file.endswith(".arrow")]
    assert len(files) == 24
    assert sum(card.samples.values()) > 24


def test_the_same_picture_saved_in_other_ways_is_one_image(tmp_path: Path) -> None:
    """Of copies that were known by their bytes, 31 of 40 test images were in train, too."""
    rng = np.random.default_rng(2)
    for index in range(60):
        grey = index % 3 == 0
        image = Image.fromarray(noise(rng, channels=1 if grey else 3))
        folder = tmp_path / "raw" / CLASSES[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        ways = {"a.png": ("PNG", {}), "b.png": ("PNG", {"compress_level": 0}), "c.bmp": ("BMP", {})}
        ways |= {"d.webp": ("WEBP", {"lossless": True}), "e.tiff": ("TIFF", {"compression": "tiff_lzw"})}
        for name, (kind, options) in ways.items():
            picture = image.convert("RGB") if grey and name != "a.png" else image
            (folder / f"{index:02d}-{name}").write_bytes(encoded(picture, kind, **options))
    card = make(tmp_path, config(tmp_path / "raw"))
    assert sum(card.samples.values()) == 300
    assert card.warnings == ["240 images have the same pixels as others; such copies stay together in one split"]
    folder = tmp_path / "data" / "pets"
    splits = [set(Packed(folder, split).column("identity").to_pylist()) for split in card.samples]
    assert sum(len(split) for split in splits) == len(set.union(*splits)) == 60
    record(tmp_path)
    assert seen_identities(open_dataset(tmp_path, "pets", folder)) == splits[0] | splits[1]


def test_the_report_of_what_was_left_out_is_whole_or_refused(tmp_path: Path) -> None:
    bad = make_folder(tmp_path / "raw", 24, 10)
    settings = config(tmp_path / "raw")
    card = make(tmp_path, settings)
    record(tmp_path)
    folder = tmp_path / "data" / "pets"
    path = folder / "report.jsonl"
    good = path.read_bytes()
    assert len(good.splitlines()) == len(bad) + card.converted.count
    assert len(check_dataset(tmp_path, "pets", settings, folder, lambda *_: None)["rejected"]) == 10
    for damaged in (b"", good[:-9], good[: good.index(b"\n") + 1], b"[]\n" + good, b"\xff" + good, None):
        path.write_bytes(damaged) if damaged is not None else path.unlink()
        with pytest.raises(
            InputError, match=r"dataset 'pets': report\.jsonl .*: run `dvc checkout data@pets`"
        ) as caught:
            read_report(folder, card)
        assert "\n" not in str(caught.value)
        result = check_dataset(tmp_path, "pets", settings, folder, lambda *_: None)
        assert "report.jsonl" in result["problems"][0]
        assert len(result["problems"]) == 1


def test_nothing_to_say_leaves_no_report(tmp_path: Path) -> None:
    for index in range(6):
        path = tmp_path / "raw" / CLASSES[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(noise(np.random.default_rng(index))), "PNG"))
    card = make(tmp_path, config(tmp_path / "raw"))
    assert "report.jsonl" not in card.files
    assert read_report(tmp_path / "data" / "pets", card).rejected == []


def test_a_file_that_was_only_touched_or_removed_is_unchanged(tmp_path: Path) -> None:
    make_folder(tmp_path / "raw", 24, 0)
    card = make(tmp_path, config(tmp_path / "raw"))
    folder = tmp_path / "data" / "pets"
    opened = {path.name: identity_of(path) for path in folder.iterdir()}
    dataset = Dataset(folder, card, folder_hash(folder, None)[0], opened=opened)
    (folder / "test-all.arrow").touch()
    dataset.require_unchanged()
    content = (folder / "test-all.arrow").read_bytes()
    (folder / "test-all.arrow").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WorkError, match=f"written to .*: they were {dataset.hash}, and are [0-9a-f]{{32}}.dir"):
        dataset.require_unchanged()
    (folder / "test-all.arrow").unlink()
    dataset.require_unchanged()  # it is still open, and what is gone cannot change
