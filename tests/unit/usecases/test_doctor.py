"""`assay doctor`: its rules on known-bad input, and the real thing on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from typer.testing import CliRunner

from assay import installed
from assay.cli.doctor import doctor as verb
from assay.usecases import doctor
from assay.usecases.doctor import Finding

GOOD = {"prefect": "3.8.8", "fastapi": "0.150.0", "torch": "2.14.1", "torchvision": "0.29.1"}
REPOSITORY = Path(__file__).parents[3]


def combinations(versions: Mapping[str, str]) -> list[Finding]:
    return list(doctor.check_combinations(versions))


def package(text: str, versions: Mapping[str, str], constraints: Mapping[str, str], found: bool = True) -> Finding:
    (check,) = [
        check
        for check in doctor.check_packages([Requirement(text)], versions, constraints, lambda _: found)
        if check.name.startswith("package")
    ]
    return check


def run(folder: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    program = "import typer; from assay.cli.doctor import doctor; typer.run(doctor)"
    bin_folder = str(Path(sys.executable).parent)
    path = {"PATH": os.pathsep.join((bin_folder, os.environ["PATH"])), "ASSAY_PROJECT": str(folder)}
    command = [sys.executable, "-c", env.pop("before", "") + program, *options]
    return subprocess.run(
        command, cwd=folder, env=os.environ | path | env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small, whole project: params.yaml, git with a commit, DVC."""
    (tmp_path / "params.yaml").write_text("datasets:\n  digits:\n    source: {kind: digits}\n")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "Start"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    return tmp_path


def test_the_pinned_versions_are_not_known_to_be_bad() -> None:
    assert [check.ok for check in combinations(GOOD)] == [True]
    pins = doctor.read_constraints(REPOSITORY)
    assert pins["fastapi"] == "0.150.0"
    assert all(check.ok for check in combinations(pins))


@pytest.mark.parametrize(
    ("change", "symptom", "fix"),
    [
        ({"fastapi": "0.151.2"}, "min_items", "pip install -c constraints.txt fastapi"),
        ({"sqlalchemy": "2.1.9"}, "no schedule ever runs", "pip install -c constraints.txt sqlalchemy"),
        ({"torch": "2.13.0"}, "torchvision::nms", "torch torchvision"),
        ({"torch": "2.14.1+cpu"}, "not of the same build", "same index"),
    ],
)
def test_a_known_bad_combination_is_named_with_its_fix(change: dict[str, str], symptom: str, fix: str) -> None:
    (check,) = combinations(GOOD | change)
    assert not check.ok
    assert symptom in check.detail
    assert fix in check.fix
    assert all(version in check.detail for version in change.values())


def test_bad_combinations_need_all_their_parts() -> None:
    assert combinations({"fastapi": "0.151.2"})[0].ok
    assert combinations({"torchvision": "0.29.1"})[0].ok
    assert combinations(GOOD | {"prefect": "3.9.0", "fastapi": "0.151.2"})[0].ok


def test_two_bad_combinations_are_both_reported() -> None:
    assert len([c for c in combinations(GOOD | {"fastapi": "1.0", "torch": "2.0"}) if not c.ok]) == 2


def test_packages_missing_different_or_as_pinned() -> None:
    pins = {"dvc": "3.67.1"}
    assert package("dvc", {"dvc": "3.67.1"}, pins) == Finding("package dvc", True, "3.67.1")
    missing = package("dvc", {}, pins)
    assert (missing.ok, missing.detail) == (False, "not installed")
    assert missing.fix == "pip install -c constraints.txt 'dvc'"
    other = package("dvc", {"dvc": "3.68.0"}, pins)
    assert other.ok
    assert "not 3.67.1" in other.detail
    assert other.fix
    assert package("torch", {"torch": "2.14.1+cpu"}, {"torch": "2.14.1"}).fix == ""
    assert not package("dvc", {"dvc": "3.67.1"}, pins, found=False).ok
    assert not package("dvc>=4", {"dvc": "3.67.1"}, pins).ok


def test_ray_without_its_default_extra_is_incomplete() -> None:
    there = doctor.installed_versions()
    assert package("ray[default]", there, {}).ok
    check = package("ray[default]", {k: v for k, v in there.items() if k not in ("aiohttp-cors", "opencensus")}, {})
    assert not check.ok
    assert "aiohttp-cors, opencensus missing" in check.detail
    assert "ray[default]" in check.fix


def test_the_direct_requirements_are_those_of_the_distribution() -> None:
    found = {str(requirement) for requirement in doctor.direct_requirements()}
    assert {"mlflow[auth]", "ray[default,train,tune]", "dvc"} <= found
    assert not any("pytest" in text for text in found)


def test_python_constraints_space_and_shared_memory() -> None:
    assert [doctor.check_python(v).ok for v in ("3.10.9", "3.11.7", "3.12.1", "3.13.0")] == [False, True, True, False]
    text = "# pins\nFlask_WTF==1.3.0  # forms\nray[default]>=2\ntorch==2.14.1 ; python_version > '3'\n"
    assert installed.parse_constraints(text) == {"flask-wtf": "1.3.0", "torch": "2.14.1"}
    space = [doctor.check_space("state", Path("x"), int(gb * doctor.GB)) for gb in (0.5, 3, 50)]
    assert [(check.ok, bool(check.fix)) for check in space] == [(False, True), (True, True), (True, False)]
    small = doctor.check_shared_memory(64 * 2**20, 24 * doctor.GB)
    assert small.ok
    assert "--shm-size=7g" in small.fix
    assert doctor.check_shared_memory(20 * doctor.GB, 24 * doctor.GB).fix == ""
    assert doctor.check_shared_memory(None, 0).fix == ""


def test_every_wrong_line_of_params_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("datasets: {a: {source: {kind: digits}, sed: 1}}\nexperiments: 3\n")
    check = doctor.check_params(file)
    assert not check.ok
    lines = check.detail.splitlines()
    assert len(lines) == 2
    assert "datasets.a.sed" in lines[0]
    assert "experiments" in lines[1]


def test_git_and_dvc(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert doctor.check_git(project).ok
    assert doctor.check_dvc(project).fix == ""
    (project / ".dvc" / "config").write_text("")
    assert "core.analytics" in doctor.check_dvc(project).fix
    bare = tmp_path_factory.mktemp("bare")
    assert doctor.check_git(bare).detail == f"{bare}: not a git repository"
    assert doctor.check_git(bare).fix.startswith("run `git init` and commit")
    assert "dvc init" in doctor.check_dvc(bare).fix
    subprocess.run(["git", "init", "-q", str(bare)], check=True)
    assert "no commit" in doctor.check_git(bare).detail


def test_the_program_must_be_found_and_be_the_one_of_this_environment() -> None:
    here = Path("/env/bin")
    assert doctor.check_program("/env/bin/assay", here) == Finding("assay on PATH", True, "/env/bin/assay")
    assert "another environment" in doctor.check_program("/else/bin/assay", here).detail
    missing = doctor.check_program(None, here)
    assert not missing.ok
    assert "/env/bin" in missing.fix


def test_the_tracking_store(tmp_path: Path) -> None:
    assert doctor.check_tracking(f"sqlite:///{tmp_path}/new/mlflow.db").ok
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 100)
    assert "not readable as a database" in doctor.check_tracking(f"sqlite:///{tmp_path}/mlflow.db").detail
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for scheme in ("http", "postgresql"):
            silent = doctor.check_tracking(f"{scheme}://me:hidden@127.0.0.1:{port}")
            assert not silent.ok
            assert "hidden" not in silent.detail
        taken.listen()
        assert doctor.check_tracking(f"postgresql://me:hidden@127.0.0.1:{port}/db").ok
        owner = doctor.check_services(tmp_path, port)
        assert owner.ok
        assert f"pid {os.getpid()}" in owner.detail
        assert owner.fix == f"assay ui --port {port + 1}"
    assert doctor.check_services(tmp_path, port).fix == ""


def test_json_is_one_object_and_failures_exit_2(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_PROJECT", str(project))
    monkeypatch.setenv("PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    app = typer.Typer()
    app.command()(verb)
    good = CliRunner().invoke(app, ["--json"])
    result = json.loads(good.stdout)
    assert {frozenset(check) for check in result["checks"]} == {frozenset({"name", "ok", "detail", "fix"})}
    assert (good.exit_code, result["ok"]) == (0, True), [check for check in result["checks"] if not check["ok"]]
    (project / "params.yaml").write_text("datasetz: {}\n")
    bad = CliRunner().invoke(app, ["--json"])
    assert bad.exit_code == 2
    assert [check["name"] for check in json.loads(bad.stdout)["checks"] if not check["ok"]] == ["params.yaml"]
    people = CliRunner().invoke(app, [])
    assert people.exit_code == 2
    assert "✗  params.yaml" in people.stdout
    assert "✓  packages" in people.stdout
    assert "1 problem, " in people.stdout


def test_outside_a_project_it_still_speaks(tmp_path: Path) -> None:
    done = run(tmp_path, "--json", ASSAY_PROJECT="")
    assert done.returncode == 2
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert not checks["git"]["ok"]
    assert not checks["dvc"]["ok"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_missing_packages_are_named_and_do_not_stop_it(project: Path, options: list[str]) -> None:
    gone = ["ruamel", "ruamel.yaml", "mlflow", "pydantic_settings", "psutil", "dvc", "torch"]
    gone += [] if options else ["rich"]
    before = f"""
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name in {gone!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Gone())
"""
    done = run(project, *options, before=before)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for name in ("ruamel.yaml", "mlflow", "pydantic-settings", "psutil", "dvc", "torch"):
        assert f"package {name}" in done.stdout
    assert done.stdout.count("its module is missing") == len(gone) - 1  # ruamel and ruamel.yaml are one
    assert "No module named" in done.stdout


def test_an_own_task_that_dvc_does_not_find_is_named_with_the_link(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(
        "datasets: {points: {source: {kind: digits}}}\n"
        "experiments: {own: {task: {name: tests.support.knobs}, data: points}}\n"
    )
    assert doctor.check_params(file).fix == ""  # a project without the platform's code has no such stage
    tasks = tmp_path / "platform/assay/tasks"
    tasks.mkdir(parents=True)
    found = doctor.check_params(file)
    assert found.ok
    assert found.fix.startswith("ln -s FOLDER platform/assay/tasks/tests.support.knobs")
    (tasks / "tests.support.knobs").symlink_to(REPOSITORY / "tests/support/knobs")
    assert doctor.check_params(file).fix == ""
