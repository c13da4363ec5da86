"""What several contract tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.data.dataset import prepare
from tests.conftest import made_once
from tests.support.families import PARAMS, REPOSITORY


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every dataset of params.yaml, prepared."""

    def make(folder: Path) -> None:
        for name, config in PARAMS.datasets.items():
            prepare(REPOSITORY, name, config, folder / name, lambda *_: None)

    return made_once(tmp_path_factory, "datasets", make)
