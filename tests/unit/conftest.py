"""A git project and a tracking database, for the tests of what talks to them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assay.settings import Settings
from assay.tracking.tracker import Tracker

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Runs git in an empty folder `project` that is no repository yet, apart from the user's own settings."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@example.org")

    def run(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=project, check=True, capture_output=True, text=True).stdout

    return run


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A project with local state, shared by all tests: making the database costs more than they do."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ASSAY_TRACKING_URI", "MLFLOW_TRACKING_URI", "ASSAY_STORAGE", "ASSAY_ARTIFACT_URI"):
            patch.delenv(name, raising=False)
        root = tmp_path_factory.mktemp("project")
        (root / "params.yaml").touch()
        yield Settings(project=root)


@pytest.fixture(scope="session")
def tracker(settings: Settings) -> Tracker:
    return Tracker(settings)
