"""Flows in any project: installed with Assay, and one line for what the project lacks."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest
from setuptools import find_namespace_packages

from assay.config.params import load_params
from assay.errors import InputError
from assay.installed import flows_found
from assay.settings import Settings
from pipelines.runtime.project import require_stages

REPOSITORY = Path(__file__).parents[3]

PARAMS = """\
datasets:
  digits:
    source: {kind: digits}
experiments:
  digits:
    task: {name: classification, architecture: small_cnn, image_size: 8}
    data: digits
    optimizer: {name: adamw, lr: 3.0e-3}
    train: {epochs: 1, batch_size: 64, workers: 0}
schedules:
  nightly: {flow: retrain, experiment: digits, cron: "0 3 * * *", timezone: Europe/Berlin}
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that is not a clone of this repository: a folder with params.yaml alone."""
    monkeypatch.setenv("PREFECT_API_URL", "")
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def test_the_distribution_has_the_flows_and_nothing_that_is_not_for_users() -> None:
    find = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    found = {
        name.partition(".")[0]
        for where in find["where"]
        for name in find_namespace_packages(str(REPOSITORY / where), include=find["include"])
    }
    assert found == {"assay", "pipelines"}


def test_schedules_are_listed_without_anything_but_params_yaml(foreign: Path) -> None:
    from pipelines.runtime.deployments import rows

    assert flows_found(foreign)
    (row,) = rows(Settings(project=foreign), load_params(foreign / "params.yaml"))
    assert (row["name"], row["flow"], row["target"], row["applied"]) == ("nightly", "retrain", "digits", None)
    assert len(row["next"]) == 3


def test_a_schedule_names_its_flow_so_that_any_project_can_import_it(foreign: Path) -> None:
    from pipelines.runtime.deployments import _wanted_options

    config = load_params(foreign / "params.yaml").schedules["nightly"]
    wanted = _wanted_options(Settings(project=foreign), "nightly", config)
    assert wanted["entrypoint"] == "pipelines.flows.retrain.retrain"
    assert wanted["job_variables"]["working_dir"] == str(foreign)


def test_what_a_project_lacks_for_its_flows_is_one_line(foreign: Path) -> None:
    def lacks() -> str:
        with pytest.raises(InputError) as caught:
            require_stages(foreign)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    assert "not a git repository: run `git init` and commit" in lacks()
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "Start"]):
        subprocess.run(["git", *words], cwd=foreign, check=True)
    assert "not a DVC repository: run `dvc init`" in lacks()
    (foreign / ".dvc").mkdir()
    assert "no dvc.yaml" in lacks()
    (foreign / "dvc.yaml").write_text("stages: {}\n")
    require_stages(foreign)
