"""Bad input gets one clear line and exit code 2, before any training, and leaves nothing behind."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import Project


def edit(project: Project, old: str, new: str) -> None:
    path = project.root / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def snapshot(root: Path) -> set[str]:
    ignored = (".git", ".dvc/tmp", ".assay/hashes", ".assay/mlflow", ".assay/datasets", "__pycache__")
    return {p for p in (str(path.relative_to(root)) for path in root.rglob("*")) if not any(i in p for i in ignored)}


def refused(project: Project, *arguments: str, lines: int = 1, apart: bool = False) -> str:
    """The lines of a refusal; the project is as it was."""
    (project.root / ".assay").mkdir(exist_ok=True)
    before = snapshot(project.root)
    told = project.refused(*arguments, apart=apart)
    assert len(told.splitlines()) == lines, told
    assert all(line.startswith("error: ") for line in told.splitlines())
    assert snapshot(project.root) == before
    return told


def test_all_mistyped_keys_at_once(project: Project) -> None:
    edit(project, "epochs: 20", "epoch: 30")
    edit(project, "architecture: small_cnn", "architecture: small_cn")
    edit(project, "lr: 3.0e-3", "lr: fast")
    told = refused(project, "train", "digits", lines=3, apart=True)
    assert "experiments.digits.train.epoch: unknown key 'epoch'; did you mean 'epochs'?" in told
    assert "experiments.digits.task.architecture" in told
    assert "experiments.digits.optimizer.lr" in told


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("name: classification", "name: clasification", "unknown task 'clasification'; did you mean 'classification'?"),
        ("data: digits", "data: digit", "unknown dataset 'digit'; did you mean 'digits'?"),
        ("kind: digits", "kind: digitz", "unknown kind of source 'digitz'"),
        ("workers: 2", "workers: 3", "batch_size 64 is not divisible by workers 3"),
        ("epochs: 20", "epochs: [", "not valid YAML"),
    ],
)
def test_wrong_values_in_the_parameters(project: Project, old: str, new: str, says: str) -> None:
    edit(project, old, new)
    assert says in refused(project, "train", "digits")


def test_unknown_experiment_lists_the_known(project: Project) -> None:
    for verb, apart in (("train", False), ("evaluate", True), ("register", True)):
        told = refused(project, verb, "digit", apart=apart)
        assert "unknown experiment 'digit'; did you mean 'digits'? Known: digits." in told
    assert "assay train digits" in refused(project, "evaluate", "digits")


def test_more_workers_than_slots(project: Project) -> None:
    told = refused(project, "train", "digits", "--workers", "64")
    assert "64 workers need 64 CPU cores" in told
    assert "--workers" in told


@pytest.mark.parametrize("what", ["missing", "changed", "not recorded"])
def test_data_that_are_not_the_recorded_version(project: Project, what: str) -> None:
    folder = project.root / "data/digits"
    if what == "missing":
        for place in (folder, project.root / ".dvc/cache", project.root / ".assay/datasets"):
            shutil.rmtree(place, ignore_errors=True)
    elif what == "changed":
        shard = folder / "train-all.arrow"
        content = shard.read_bytes()
        shard.unlink()
        shard.write_bytes(content[:-1] + b"?")
    else:
        (project.root / "dvc.lock").unlink()
    told = refused(project, "train", "digits")
    assert "data@digits" in told
    assert {
        "missing": "is missing, and DVC's cache lacks it",
        "changed": "train-all.arrow",
        "not recorded": "no recorded version",
    }[what] in told


@pytest.mark.parametrize(("gone", "says"), [(".git", "git init"), (".dvc", "dvc init")])
def test_no_repository(project: Project, gone: str, says: str) -> None:
    shutil.rmtree(project.root / gone)
    assert says in refused(project, "train", "digits")


def test_a_file_in_place_of_the_state(project: Project) -> None:
    shutil.rmtree(project.root / ".assay", ignore_errors=True)
    (project.root / ".assay").write_text("x")
    for words in (("runs",), ("train", "digits")):
        told = project.verb(*words, code=1, apart=True).stderr
        assert re.fullmatch(r"error: \S+/\.assay: a file is where a folder must be: move the file away, .*\n", told), (
            told
        )


def test_unknown_runs_and_models(project: Project) -> None:
    assert "no run" in refused(project, "evaluate", "0" * 32)
    for words in (("promote", "digits"), ("rollback", "digits"), ("predict", "digits", "dvc.yaml")):
        assert "no registered model 'digits'" in refused(project, *words, apart=words[0] == "predict")


@pytest.mark.parametrize("assignment", ["optimizer.lr", "optimizer.lrr=1", "optimizer.lr=fast", "train.epochs=0"])
def test_wrong_overrides(project: Project, assignment: str) -> None:
    assert "--set" in refused(project, "train", "digits", "--set", assignment)


def test_outside_of_a_project(project: Project, tmp_path: Path) -> None:
    environment = {k: v for k, v in project.environment.items() if k != "ASSAY_PROJECT"}
    import subprocess

    done = subprocess.run(["assay", "train", "digits"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no params.yaml here or above" in done.stderr


def test_a_dead_tracking_server(project: Project) -> None:
    environment = {
        **project.environment,
        "ASSAY_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    import subprocess

    done = subprocess.run(
        ["assay", "train", "digits"], cwd=project.root, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert len(done.stderr.splitlines()) == 1
