"""Projects with two rivals, made once for the files that use them."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.usecases.promote import register
from tests.conftest import Project
from tests.integration.test_models import loosen, proved
from tests.support.rivals import Runs, copied


@pytest.fixture(scope="session")
def measured(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a good run and a poor one, in this order, both evaluated and neither registered."""
    project = template.copy(tmp_path_factory.mktemp("measured") / "p")
    loosen(project)
    proved(project)
    proved(project, "train.epochs=1", "optimizer.lr=1.0e-4")
    return project


@pytest.fixture(scope="session")
def with_versions(measured: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same with both registered: the good one is version 1 and champion, the poor one version 2."""
    project = copied(measured, tmp_path_factory.mktemp("versions") / "p")
    assert register(Runs.of(project).good, project.settings)["decision"] == "promoted"
    assert register(Runs.of(project).poor, project.settings)["decision"] == "rejected"
    return project


@pytest.fixture
def ready(measured: Project, tmp_path: Path) -> Project:
    return copied(measured, tmp_path / "p")


@pytest.fixture
def rivals(with_versions: Project, tmp_path: Path) -> Project:
    return copied(with_versions, tmp_path / "p")
