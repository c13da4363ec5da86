"""A run is stale when code changes that its weights follow from, and only then."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from assay import inputs
from assay.config.params import load_params
from assay.config.plugin import task_names
from assay.inputs import LIBRARIES, SHARED, code_files, code_sha256
from tests.conftest import Project
from tests.support.files import write_files

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "platform/assay"

HARMLESS = {
    "assay": "empty",
    "assay.config": "empty",
    "assay.config.card": "what a dataset's card says is hashed with the dataset",
    "assay.config.dataset": "how a dataset is made: its bytes are hashed",
    "assay.config.experiment": "what it makes of params.yaml, every default written out, is hashed with the run",
    "assay.config.schema": "as above",
    "assay.data": "empty",
    "assay.data.annotations": "how a dataset is packed: the packed bytes are hashed",
    "assay.data.dataset": "as above; opening hands over the packed bytes as they are",
    "assay.data.report": "messages about the raw data",
    "assay.data.samples": "how a dataset is packed: the packed bytes are hashed",
    "assay.data.shards": "as above",
    "assay.data.split": "as above",
    "assay.data.starter": "proposes a first experiment",
    "assay.data.version": "hashes",
    "assay.errors": "messages",
    "assay.files": "writes what it is given",
    "assay.inputs": "computes these hashes",
    "assay.owner": "tells living processes from dead ones",
    "assay.progress": "shows how far something is",
    "assay.report": "empty",
    "assay.report.pictures": "draws",
    "assay.sealed": "checksums of lines",
    "assay.state": "names of files below .assay/",
    "assay.tasks": "empty",
}
"""Modules that training imports and that cannot change a weight, each with its reason."""

NO_ARITHMETIC = {
    "huggingface-hub": "fetches files",
    "matplotlib": "draws",
    "pydantic": "checks settings",
    "safetensors": "keeps bytes",
}
"""Packages that hashed code imports and whose version cannot change a weight."""


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("assay", exclude_type_checking_imports=True)


def reached_from(starts: set[str], imports: grimp.ImportGraph) -> set[str]:
    """The modules that these import, however indirectly, and their packages, whose code runs first."""
    reached = starts.union(*(imports.find_upstream_modules(start) for start in starts))
    return {".".join(parts[:depth]) for parts in (m.split(".") for m in reached) for depth in range(1, len(parts) + 1)}


def hashed_modules(task: str) -> set[str]:
    names = (name.removesuffix(".py").replace("/", ".") for name in code_files(task))
    return {name.removesuffix(".__init__") for name in names}


@pytest.mark.parametrize("task", task_names())
def test_what_training_imports_is_hashed_or_harmless(imports: grimp.ImportGraph, task: str) -> None:
    starts = {f"assay.tasks.{task}.config", f"assay.tasks.{task}.task", "assay.train.loop", "assay.train.prepare"}
    assert sorted(reached_from(starts, imports) - hashed_modules(task) - set(HARMLESS)) == []


def test_every_excuse_is_needed(imports: grimp.ImportGraph) -> None:
    starts = {"assay.train.prepare", *(f"assay.tasks.{task}.task" for task in task_names())}
    assert sorted(set(HARMLESS) - reached_from(starts, imports)) == []


def test_the_packages_that_hashed_code_imports_count_as_libraries() -> None:
    distributions = packages_distributions()
    for path in {path for task in task_names() for path in code_files(task).values()}:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for top in {module.partition(".")[0] for module in modules} - {"assay", *sys.stdlib_module_names}:
                owners = {canonicalize_name(owner) for owner in distributions[top]}
                assert owners & {*LIBRARIES, *NO_ARITHMETIC}, f"{path} imports {top}"


def test_the_dependencies_of_a_training_stage_are_the_hashed_code() -> None:
    stage = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())["stages"]["train"]["do"]
    code = {f"platform/assay/{name}" for name in (*SHARED, "tasks/${item.task.name}")}
    assert set(stage["deps"]) == {"data/${item.data}", "constraints.txt", *code}


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that may be changed, and whose hashes are asked for."""
    copy = tmp_path / "assay"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(inputs, "PACKAGE", copy)
    return copy


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_another_message_of_the_storage_makes_nothing_stale(code: Path) -> None:
    before = {task: code_sha256(task) for task in task_names()}
    change(code / "storage/dvc_remote.py", "damaged", "broken")
    change(code / "workers/launch.py", "worker", "helper")
    assert {task: code_sha256(task) for task in task_names()} == before


def test_another_choice_of_the_weights_makes_all_stale(code: Path) -> None:
    before = {task: code_sha256(task) for task in task_names()}
    change(code / "config/plugin.py", "value >= than", "value > than")
    assert all(code_sha256(task) != before[task] for task in task_names())


def test_a_change_of_a_task_makes_its_own_runs_stale_alone(code: Path) -> None:
    before = {task: code_sha256(task) for task in task_names()}
    change(code / "tasks/gan/losses.py", "softplus", "relu")
    changed = {task for task in task_names() if code_sha256(task) != before[task]}
    assert changed == {"gan"}


def test_the_order_of_files_and_their_names_count(code: Path) -> None:
    before = code_sha256("gan")
    first, second = code / "tasks/gan/losses.py", code / "tasks/gan/model.py"
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    assert code_sha256("gan") != before


def test_a_task_of_an_own_package_counts_what_it_imports_of_that_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "acme_walk/__init__.py": "",
        "acme_walk/vision/__init__.py": "",
        "acme_walk/vision/counting/__init__.py": "",
        "acme_walk/vision/counting/config.py": "class Config: ...\n",
        "acme_walk/vision/counting/task.py": "from ..shared import losses\nimport json\n",
        "acme_walk/vision/shared/__init__.py": "",
        "acme_walk/vision/shared/losses.py": "def loss():\n    from acme_walk.numbers import pi\n    return pi\n",
        "acme_walk/numbers.py": "pi = 3\n",
        "acme_walk/website.py": "title = 'Acme'\n",
    }
    write_files(tmp_path, files)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    task = "acme_walk.vision.counting"
    before = code_sha256(task)
    assert hashed_modules("gan").isdisjoint({"acme_walk.numbers"})
    (tmp_path / "acme_walk/website.py").write_text("title = 'Acme & Sons'\n")
    assert code_sha256(task) == before
    (tmp_path / "acme_walk/numbers.py").write_text("pi = 4\n")
    assert code_sha256(task) != before


def test_dvc_finds_a_change_of_the_gan_where_the_gan_is_trained_alone(project: Project) -> None:
    """The digits are trained by a classifier: its stage stays what it was."""
    params = project.root / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 20", "epochs: 1").replace("workers: 2", "workers: 0"))
    assert load_params(params).experiment("digits").task.name == "classification"
    project.run("dvc", "commit", "-q", "-f", "data@digits")
    project.train()
    project.run("dvc", "commit", "-q", "-f", "train@digits")
    change(project.root / "platform/assay/tasks/gan/losses.py", "softplus", "relu")
    assert "train@digits" not in project.run("dvc", "status", "train@digits").stdout
    change(project.root / "platform/assay/config/plugin.py", "value >= than", "value > than")
    assert "config/plugin.py" in project.run("dvc", "status", "train@digits").stdout
