"""What params.yaml, dvc.yaml and the dependency files must agree on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from assay.config.params import load_params

REPOSITORY = Path(__file__).parents[2]


def test_every_stage_runs_a_verb_that_exists() -> None:
    text = (REPOSITORY / "dvc.yaml").read_text()
    commands = re.findall(r"cmd: assay ([a-z ]+) \$", text)
    assert commands == ["data prepare", "train", "evaluate", "register", "tune"]
    for command in commands:
        done = subprocess.run(
            [Path(sys.executable).parent / "assay", *command.split(), "--help"], capture_output=True, text=True
        )
        assert done.returncode == 0
        assert "Example:" in done.stdout


def test_every_dependency_is_pinned_and_has_its_reason() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    direct = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    pinned = {line.partition("==")[0].lower() for line in (REPOSITORY / "constraints.txt").read_text().splitlines()}
    reasons = dict(re.findall(r'^    "([^"]+)",  # (\w.{3,})$', text, flags=re.MULTILINE))
    assert set(reasons) == set(direct)
    for requirement in direct:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert name.lower() in pinned, f"{name} is not in constraints.txt"
        assert reasons[requirement].lower() != name.lower()


def test_the_parameters_are_valid_and_the_demo_is_among_them() -> None:
    assert "digits" in load_params(REPOSITORY / "params.yaml").experiments


def test_every_preset_fits_its_experiment() -> None:
    params = load_params(REPOSITORY / "params.yaml")
    for experiment, presets in params.presets.items():
        for name in presets:
            assert params.preset(experiment, name) != params.experiment(experiment)


def test_no_file_is_too_long() -> None:
    for folder in ("platform", "pipelines", "benchmarks", "tests"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path


def test_platform_is_no_package() -> None:
    assert not (REPOSITORY / "platform/__init__.py").exists()
    assert not (REPOSITORY / "platform/assay/tasks/__init__.py").read_text().strip()
