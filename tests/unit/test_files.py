"""Files of our own that are damaged are named, with what to do; whole ones replace each other whole."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from assay.errors import InputError
from assay.files import FORGET_SECONDS, clear_leftovers, new_folder, read_json, write_atomic
from assay.owner import Owner

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "platform")}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'{"run_id": "0', "it is cut or no JSON: "),
        (b"\xff\xfe\x00garbage", "it is cut or no JSON: "),
        (b"\0" * 40, "it is cut or no JSON: "),
        (b"[1, 2]", "it holds no object"),
        (b'{"other": 1}', "it lacks run_id"),
    ],
)
def test_a_damaged_file_is_named_with_the_fix(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: damaged \({why}.*\): run it again$"):
        read_json(path, "run it again", needs=("run_id",))


def test_a_whole_file_is_read_and_a_missing_one_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"run_id": "x"}')
    assert read_json(tmp_path / "a", "", needs=("run_id",)) == {"run_id": "x"}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b", "")


KILLED = """
import os, signal, sys
from pathlib import Path
from assay.files import new_folder, remove_folder, swapped, write_atomic

left = int(sys.argv[2])

def counted(original):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)
    return call

for name in ("rename", "replace", "mkdir", "open", "unlink", "chmod"):
    setattr(Path, name, counted(getattr(Path, name)))
os.fsync, os.rmdir, os.unlink = counted(os.fsync), counted(os.rmdir), counted(os.unlink)
root = Path(sys.argv[1])
write_atomic(root / "params.yaml", b"new")
with new_folder(root / "data") as fresh:
    (fresh / "a").write_text("new")
    (fresh / "b").write_text("new")
    with swapped(fresh, root / "data"):
        pass
remove_folder(root / "finished")
"""


def test_a_kill_at_any_moment_leaves_old_or_new_and_the_next_command_clears_the_rest(tmp_path: Path) -> None:
    seen = set()
    for number in range(100):
        root = tmp_path / str(number)
        for folder in ("data", "finished"):
            (root / folder).mkdir(parents=True)
            (root / folder / "a").write_text("old")
        (root / "params.yaml").write_text("old")
        done = subprocess.run([sys.executable, "-S", "-c", KILLED, str(root), str(number)], env=ENVIRONMENT)
        clear_leftovers(root)
        data = {path.name: path.read_text() for path in (root / "data").iterdir()}
        assert data in ({"a": "old"}, {"a": "new", "b": "new"})
        assert (root / "params.yaml").read_text() in ("old", "new")
        names = {path.name for path in root.iterdir()}
        assert names - {"finished"} == {"data", "params.yaml"}
        assert "finished" not in names or (root / "finished/a").read_text() == "old"
        seen.add((data["a"], (root / "params.yaml").read_text(), "finished" in names))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert seen == {("old", "old", True), ("old", "new", True), ("new", "new", True), ("new", "new", False)}


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'µ' * 125}.png"
    write_atomic(path, b"x")
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_what_a_living_process_builds_stays(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with new_folder(tmp_path / "data") as fresh:
        clear_leftovers(tmp_path)
        assert fresh.is_dir()


def test_what_another_machine_left_is_removed_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = replace(Owner.here(), machine="another").label
    leftover, lost = tmp_path / f".data.new-{label}.01234567", tmp_path / f".pets.old-{label}.01234567"
    leftover.mkdir()
    lost.mkdir()
    clear_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {leftover.name, "pets"}
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + FORGET_SECONDS + 60)
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]
