"""The recorded difference is complete and can be applied, whatever the user's git is told to show or to overlook."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from assay.git import git as ask
from assay.tracking.provenance import git_state
from tests.support.files import write_files

NUMBERS = "".join(f"{number}\n" for number in range(40))
BLOCKS = ["/*\n a\n*/\n", "/*\n b\n*/\n", "/*\n c\n*/\n"]


@pytest.fixture
def project(git: Any, tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "project"
    git("init", "--quiet")
    files = {"main.py": "print(1)\n", "numbers.txt": NUMBERS, "é.py": "a\n\nb\n", "sub/x.py": "x = 1\n"}
    files |= {"order.txt": "\n".join("bacaddddb"), "blocks.txt": "\n".join(BLOCKS[::2]), "dvc.lock": "1\n"}
    write_files(folder, files)
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    return folder


def edit(git: Any, project: Path) -> None:
    """A change, a renaming, a deletion, a new mode and a staged file."""
    (project / "main.py").write_text("print(2)\n")
    (project / "numbers.txt").write_text("zero\n" + NUMBERS.replace("20\n", "20\ntwenty\n"))
    (project / "é.py").write_text("a\n\nc\n")
    (project / "order.txt").write_text("\n".join("adaddadcb"))
    (project / "blocks.txt").write_text("\n".join(BLOCKS))
    (project / "dvc.lock").write_text("2\n")
    (project / "sub" / "x.py").rename(project / "sub" / "y.py")
    (project / "added.sh").write_text("true\n")
    (project / "added.sh").chmod(0o755)
    git("add", "added.sh", "sub")


def texts(project: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in (*project.glob("*.[pst]*"), *project.glob("sub/*"))}


SETTINGS = {
    "color.ui": "always", "color.diff": "always", "core.abbrev": "12", "core.fsmonitor": "true",
    "core.quotePath": "false", "diff.algorithm": "histogram", "diff.autoRefreshIndex": "false", "diff.context": "0",
    "diff.external": "true", "diff.ignoreSubmodules": "all", "diff.indentHeuristic": "false",
    "diff.interHunkContext": "30", "diff.mnemonicPrefix": "true", "diff.noprefix": "true", "diff.orderFile": "order",
    "diff.relative": "true", "diff.renames": "copies", "diff.submodule": "log", "diff.suppressBlankEmpty": "true",
    "diff.vault.textconv": "true", "status.showUntrackedFiles": "no",
}  # fmt: skip


@pytest.mark.parametrize("name", ["none", *SETTINGS, "all"])
def test_the_users_settings_do_not_change_the_record(
    git: Any, project: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (project / ".git" / "info" / "attributes").write_text("*.txt diff=vault\n")
    (project / ".git" / "info" / "exclude").write_text("order\n")
    (project / "order").write_text("sub/*\nnumbers.txt\n")
    edit(git, project)
    plain, below = git_state(project)[1], git_state(project / "sub")[1]
    for key, value in SETTINGS.items() if name == "all" else [(name, SETTINGS.get(name, ""))]:
        git("config", key if "." in key else "user.nickname", value)
    with monkeypatch.context() as patch:
        for variable, value in {"DIFF_OPTS": "-u0", "EXTERNAL_DIFF": "true", "LITERAL_PATHSPECS": "1"}.items():
            patch.setenv(f"GIT_{variable}", value)
        assert git_state(project)[1] == plain
        assert git_state(project / "sub")[1] == below
    expected = texts(project)
    git("reset", "--quiet", "--hard")
    subprocess.run(["git", "apply"], cwd=project, input=plain.encode(), check=True)
    assert texts(project) == expected


def test_what_a_filter_decrypts_for_the_eye_is_not_recorded(git: Any, project: Path) -> None:
    git("config", "diff.vault.textconv", "echo decrypted; cat")
    (project / ".gitattributes").write_text("*.txt diff=vault\n")
    (project / "numbers.txt").write_text("cipher\n")
    diff = git_state(project)[1]
    assert "+cipher" in diff
    assert "decrypted" not in diff


def test_a_file_that_was_only_touched_is_no_difference(git: Any, project: Path) -> None:
    os.utime(project / "main.py", (1, 1))
    assert git_state(project)[1] == ""


def test_changed_binary_files_are_told_apart_by_their_whole_hash(git: Any, project: Path) -> None:
    (project / "main.py").write_bytes(b"\0\1")
    known = git("hash-object", "main.py").strip()
    assert f"..{known} 100644\nBinary files a/main.py and b/main.py differ\n" in git_state(project)[1]


def test_a_changed_submodule_is_a_difference(git: Any, project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for words in (["init", "--quiet", str(other)], ["-C", str(other), "commit", "--quiet", "--allow-empty", "-m", "x"]):
        git(*words)
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "part")
    git("commit", "--quiet", "-m", "two")
    git("config", "submodule.part.ignore", "all")
    git("config", "diff.submodule", "log")
    git("-C", "part", "config", "status.showUntrackedFiles", "no")
    assert git_state(project)[1] == ""
    (project / "part" / "new.py").write_text("x = 1\n")
    assert "-dirty\n" in git_state(project)[1]


@pytest.mark.parametrize("marks", [["assume-unchanged"], ["skip-worktree"], ["assume-unchanged", "skip-worktree"]])
@pytest.mark.parametrize("below", [".", "sub"])
def test_edits_that_the_index_hides_are_recorded(git: Any, project: Path, marks: list[str], below: str) -> None:
    for mark in marks:
        git("update-index", f"--{mark}", "main.py", "é.py", "sub/x.py")
    index = project / ".git" / "index"
    before = index.read_bytes()
    assert git_state(project / below)[1] == ""
    (project / "sub" / "x.py").write_text("x = 2\n")
    assert "-x = 1\n+x = 2\n" in git_state(project / below)[1]
    (project / "main.py").write_text("print(2)\n")
    assert ("+print(2)\n" in git_state(project / below)[1]) == (below == ".")
    assert index.read_bytes() == before
    (project / "main.py").unlink()
    assert ("deleted file" in git_state(project)[1]) == (marks == ["assume-unchanged"])


def test_files_that_a_sparse_checkout_leaves_out_are_not_deleted(git: Any, project: Path) -> None:
    git("sparse-checkout", "set", "--no-cone", "/main.py")
    assert not (project / "sub").exists()
    assert git_state(project)[1] == ""
    git("update-index", "--assume-unchanged", "main.py")
    (project / "main.py").write_text("print(2)\n")
    diff = git_state(project)[1]
    assert "+print(2)\n" in diff
    assert diff.count("diff --git") == 1


def test_a_split_or_missing_index_is_read(git: Any, project: Path) -> None:
    git("update-index", "--split-index")
    git("update-index", "--assume-unchanged", "main.py")
    (project / "main.py").write_text("print(2)\n")
    assert "+print(2)\n" in git_state(project)[1]
    (project / ".git" / "index").unlink()
    assert "+++ main.py\nprint(2)\n" in git_state(project)[1]


@pytest.mark.parametrize("setting", ["core.trustCtime=false", "core.checkStat=minimal", "core.fsmonitor=.git/quiet"])
def test_an_edit_is_seen_where_git_is_told_not_to_look(git: Any, project: Path, setting: str) -> None:
    (project / ".git" / "quiet").write_text("#!/bin/sh\nprintf 'x\\0'\n")
    (project / ".git" / "quiet").chmod(0o755)
    git("config", *setting.split("="))
    os.utime(project / "main.py", (1, 1))
    for words in (["update-index", "--refresh"], ["update-index", "--fsmonitor"], ["status"], ["status"]):
        git(*words)
    time.sleep(1.01 - time.time() % 1)  # git compares whole seconds
    (project / "main.py").write_text("print(3)\n")
    os.utime(project / "main.py", (1, 1))
    assert git("diff", "HEAD") == ""
    assert "+print(3)\n" in git_state(project)[1]


def test_an_edit_within_the_same_moment_is_seen(git: Any, project: Path) -> None:
    for number in range(2, 9):
        (project / "main.py").write_text(f"print({number})\n")
        assert f"+print({number})\n" in git_state(project)[1]
        git("add", "main.py")
        (project / "main.py").write_text(f"print({number + 1})\n")
        assert f"+print({number + 1})\n" in git_state(project)[1]


def test_asking_for_the_state_leaves_the_index_alone(git: Any, project: Path) -> None:
    git("config", "status.showUntrackedFiles", "no")
    (project / "new.py").touch()
    os.utime(project / "main.py", (1, 1))
    before = (project / ".git" / "index").read_bytes()
    assert ask(project, "status", "--porcelain") == "?? new.py\n"
    assert git_state(project)[1] == "+++ new.py\n\n"
    assert (project / ".git" / "index").read_bytes() == before
