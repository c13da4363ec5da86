"""Real parts in small form: a git and DVC project with its digits, made once and copied for each test that asks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from filelock import FileLock

from assay.program import start_program
from assay.settings import Settings
from assay.tracking.tracker import Tracker
from assay.usecases.helpers.training_progress import TrainingProgress
from assay.usecases.train import TrainRequest, train
from tests.support.program import call
from tests.support.s3 import BUCKET, ObjectStorage, running_s3

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave their core to the tests alongside

hypothesis.settings.register_profile("assay", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("assay")

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COPIED = ("params.yaml", "dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore", "constraints.txt")
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
"""Commits on a machine whose git knows nobody."""
QUICK = ("train.epochs=3", "train.workers=0", "train.checkpoint_seconds=0")
"""A short training in this process, with a checkpoint whenever there can be one."""


MEMORY = Path("/dev/shm")
ENOUGH = 4_000_000_000


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep the files of the tests in memory: MLflow, Prefect and checkpoints wait for a disk at each small write."""
    start_program()
    ours = not hasattr(config, "workerinput") and config.option.basetemp is None
    if ours and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH:
        folder = tempfile.mkdtemp(prefix="assay-", dir=MEMORY)
        config.option.basetemp = Path(folder) / "t"
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@dataclass(frozen=True)
class Project:
    """A temporary Assay project and ways to use it."""

    root: Path

    @property
    def settings(self) -> Settings:
        return Settings(project=self.root)

    @property
    def prefect_home(self) -> Path:
        return self.root / ".assay/prefect"

    def copy(self, folder: Path) -> Project:
        shutil.copytree(self.root, folder, symlinks=True)
        return Project(folder)

    @property
    def environment(self) -> dict[str, str]:
        here = os.pathsep.join((str(REPOSITORY / "platform"), str(REPOSITORY)))
        paths = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": here}
        return {**os.environ, **paths, "ASSAY_PROJECT": str(self.root), "PREFECT_HOME": str(self.prefect_home)}

    def run(self, *command: str, code: int | None = 0, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run a program in the project; `code` is the exit code to insist on."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        assert code is None or done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def verb(self, *words: str, code: int | None = 0, apart: bool = False) -> subprocess.CompletedProcess[str]:
        """An `assay` verb in this process, or `apart` as the real program; `code` is the exit code to insist on."""
        if apart:
            return self.run(str(BIN / "assay"), *words, code=code)
        done = call(words, self.root, self.environment)
        assert code is None or done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def assay(self, *words: str, code: int = 0, apart: bool = False) -> dict[str, Any]:
        """A verb with --json; its object."""
        done = self.verb(*words, "--json", code=code, apart=apart)
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def refused(self, *words: str, code: int = 2, apart: bool = False) -> str:
        """A verb that must fail with plain lines and no traceback; its standard error."""
        done = self.verb(*words, code=code, apart=apart)
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
        return done.stderr

    def train(self, experiment: str = "digits", *assignments: str, **more: Any) -> dict[str, Any]:
        """Train in this process (on the shared Ray, if workers are asked for)."""
        return train(TrainRequest(experiment, assignments, **more), self.settings, TrainingProgress(lambda _: None))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    """What no plan gives threads to computes with one: the networks are small, and other tests run alongside."""
    import torch

    torch.set_num_threads(1)


def keep_experiment(path: Path, name: str) -> None:
    """Leave one experiment with its dataset in a `params.yaml`: what the tests say of it, others must not change."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    params = yaml.load(path)
    kept = {"datasets": params["experiments"][name]["data"], "experiments": name, "presets": name}
    for section, only in kept.items():
        for other in set(params.get(section, {})) - {only}:
            del params[section][other]
        if not params.get(section, True):
            del params[section]
    params.pop("searches", None)
    params.pop("schedules", None)
    with path.open("w") as file:
        yaml.dump(params, file)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project that the others are copies of: the digits alone, prepared and recorded by DVC, no run yet."""
    return Project(made_once(tmp_path_factory, "template", make_template))


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Prefect keeps, with the empty database that it takes many seconds to make."""

    def make(folder: Path) -> None:
        environment = {**os.environ, "PREFECT_HOME": str(folder)}
        command = [BIN / "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=240)

    return made_once(tmp_path_factory, "prefect", make)


@pytest.fixture
def flow_project(project: Project, prefect_home: Path) -> Project:
    """A project whose flows find Prefect's database there."""
    shutil.copytree(prefect_home, project.prefect_home)
    return project


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of that name: test processes that run side by side share it, and the first one makes it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    whole = folder.with_name(f"{name}-is-whole")
    with FileLock(folder.with_name(f"{name}.lock")):
        if not whole.exists():
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


def make_template(folder: Path) -> None:
    project = Project(folder)
    for name in COPIED:
        (project.root / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, project.root / name)
    keep_experiment(project.root / "params.yaml", "digits")
    for name in ("platform", "pipelines"):
        shutil.copytree(
            REPOSITORY / name, project.root / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    project.run("git", "init", "-q")
    project.run("git", "add", "-A")
    project.run(*GIT, "commit", "-qm", "start")
    project.run("dvc", "repro", "-q", "data@digits")
    project.run("git", "add", "-A")
    project.run(*GIT, "commit", "-qm", "data")
    Tracker(project.settings)._client.search_experiments()  # MLflow takes seconds to make its schema: once for all


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    return template.copy(tmp_path / "p")


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[None]:
    """One Ray for all tests of the run that train on workers."""
    from assay.workers.ray_session import ray_running

    ours = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} - set(os.environ)
    with ray_running(Settings(project=REPOSITORY), lambda _: None):
        for name in ours:  # of this Ray alone: other tests' clusters have their own
            del os.environ[name]
        yield


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStorage]:
    """One S3 server for all tests of the run; each uses a prefix of its own."""
    with running_s3() as storage:
        yield storage


@pytest.fixture
def bucket(s3: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in object storage, `s3://bucket/prefix`, that this process and its children may use."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
