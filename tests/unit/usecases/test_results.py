"""The files of `results/` say what was written, or it is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.errors import InputError
from assay.usecases.helpers.results import read_record, write_record

FIX = "run `assay train digits`, which writes it again"
RECORD = {"run_id": "a" * 32, "metrics": {"val/accuracy": 0.5, "val/odd": float("inf")}}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_record(tmp_path / "train.json", RECORD)
    assert read_record(tmp_path / "train.json", FIX) == RECORD
    (tmp_path / "old.json").write_text(json.dumps(RECORD))  # by an earlier version
    assert read_record(tmp_path / "old.json", FIX) == RECORD


@pytest.mark.parametrize("change", [("0.5", "0.6"), ("}", ""), (None, ""), (None, "[]")])
def test_a_changed_digit_and_a_cut_file_are_noticed(tmp_path: Path, change: tuple[str | None, str]) -> None:
    file = tmp_path / "train.json"
    write_record(file, RECORD)
    before, after = change
    file.write_text(after if before is None else file.read_text().replace(before, after))
    with pytest.raises(InputError, match=rf"^{file}: .*: {FIX}$"):
        read_record(file, FIX)
