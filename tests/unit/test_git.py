"""What git refuses is said with the fix that helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assay.errors import InputError
from assay.git import commit_of
from assay.git import git as ask
from assay.usecases import doctor


def test_a_repository_of_another_user_is_named_with_gits_own_fix(
    git: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("init", "--quiet")
    project = tmp_path / "project"
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    fix = f"if you trust it, run `git config --global --add safe.directory {project}`"
    with pytest.raises(InputError, match="another user owns") as told:
        commit_of(project)
    assert fix in str(told.value)
    finding = doctor.check_git(project)
    assert "another user owns" in finding.detail
    assert finding.fix.startswith(fix)


def test_what_else_git_refuses_is_for_the_user_to_fix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`git nonsense` fails .*: fix what git reports, so that"):
        ask(tmp_path, "nonsense")
