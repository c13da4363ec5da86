"""What a job takes along: code and settings, the same bytes for the same files, and never data, history or a secret."""

from __future__ import annotations

import io
import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import assay
from assay.errors import InputError
from assay.submit.package import LIMIT, Archive, pack
from assay.submit.selection import CACHES, select
from assay.tracking.provenance import PACKAGE, code_state, git_commit

Git = Callable[..., str]

PARAMS = "datasets:\n  pets: {source: {kind: image_folder, path: raw/pets}}\n"
LOCK = "stages:\n  data@pets:\n    outs:\n    - {path: data/pets, md5: a.dir}\n    - {path: models, md5: b}\n"

PLACES = [
    "",
    "src/",
    "data/",
    "results/digits/",
    "raw/pets/",
    "models/",
    ".venv/lib/",
    ".assay/",
    "a/__pycache__/",
    "mine/",
]
NAMES = ["a.py", "b.yaml", "c.png", ".env", ".env.local", "key.pem", "id_ed25519", "credentials.json", "x.pyc", "notes"]
DATA = ("data", "results", "raw/pets", "models")
SECRET = {".env", ".env.local", "key.pem", "id_ed25519", "credentials.json"}


@pytest.fixture
def project(git: Git, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    git("init", "--quiet")
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "dvc.lock").write_text(LOCK)
    (folder / "main.py").write_text("print(1)\n")
    (folder / ".gitignore").write_text("ignored/\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    return folder


def names(archive: Archive) -> set[str]:
    return set(zipfile.ZipFile(io.BytesIO(archive.content)).namelist())


def text(archive: Archive, name: str) -> str:
    return zipfile.ZipFile(io.BytesIO(archive.content)).read(name).decode()


def write(path: Path, content: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which any file may be: the examples of a property share it."""
    root = tmp_path_factory.mktemp("everything")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.lock").write_text(LOCK)
    return root


@hypothesis_settings(max_examples=40, deadline=None)
@given(files=st.sets(st.tuples(st.sampled_from(PLACES), st.sampled_from(NAMES)), min_size=1), tracked=st.booleans())
def test_only_code_and_settings_are_chosen(everything: Path, files: set[tuple[str, str]], tracked: bool) -> None:
    made = {place + name for place, name in files}
    for name in made:
        write(everything / name)
    if tracked:  # data and keys stay here also where somebody committed them
        subprocess.run(["git", "add", "--force", "--all"], cwd=everything, check=True)
    chosen, keys = select(everything)
    for name in made:
        (everything / name).unlink()
    subprocess.run(["git", "rm", "-rq", "--cached", "--ignore-unmatch", "."], cwd=everything, check=True)
    expected = set()
    for name in made:
        path = PurePosixPath(name)
        data = any(name.startswith(f"{folder}/") for folder in DATA)
        if not data and not CACHES & set(path.parts) and path.suffix != ".pyc":
            expected.add(name)
    secret = {name for name in expected if PurePosixPath(name).name in SECRET}
    assert set(chosen) == (expected - secret) | {"params.yaml", "dvc.lock"}
    assert set(keys) == secret
    assert chosen == sorted(chosen)


def test_the_same_files_are_the_same_bytes(git: Git, project: Path) -> None:
    first = pack(project, environment={})
    os.utime(project / "main.py", (1, 1))
    (project / "ignored").mkdir()
    (project / "ignored/big").write_text("not there")
    again = pack(project, environment={})
    assert (again.project, again.code, again.sha256) == (first.project, first.code, first.sha256)
    write(project / "main.py", "print(2)\n")
    changed = pack(project, environment={})
    assert changed.code.uri == first.code.uri
    assert changed.project.uri != first.project.uri
    assert (first.dirty, changed.dirty) == (False, True)


def test_the_package_explains_itself_where_there_is_no_git(git: Git, project: Path, tmp_path: Path) -> None:
    write(project / "main.py", "print(2)\n")
    write(project / "new.py", "password = 'swordfish7'\n")
    here, package = code_state(project), pack(project, environment={})
    there = tmp_path / "there"
    zipfile.ZipFile(io.BytesIO(package.project.content)).extractall(there)
    assert code_state(there) == here
    assert git_commit(there) == here.commit == git("rev-parse", "HEAD").strip()
    assert "+print(2)" in here.diff
    assert "swordfish7" not in text(package.project, PACKAGE)
    assert not (there / ".git").exists()
    inside = project / "job"  # a node's folder may lie in a repository that has nothing to do with the job
    zipfile.ZipFile(io.BytesIO(package.project.content)).extractall(inside)
    assert code_state(inside) == here
    write(there / PACKAGE, "{}")
    with pytest.raises(InputError, match="damaged .*: submit the job again"):
        code_state(there)


def test_the_code_is_the_one_that_runs_here(project: Path) -> None:
    found = names(pack(project, environment={}).code)
    source = Path(assay.__file__).parent
    assert {f"assay/{path.relative_to(source).as_posix()}" for path in source.rglob("*.py")} <= found
    assert all(name.startswith("assay/") and "__pycache__" not in name for name in found)


def test_files_that_the_config_names_go_along(project: Path) -> None:
    write(project / "ignored/weights.safetensors")
    assert "ignored/weights.safetensors" not in names(pack(project, environment={}).project)
    assert "ignored/weights.safetensors" in names(pack(project, ["ignored/weights.safetensors"], {}).project)


def test_links_out_of_the_project_are_refused(project: Path, tmp_path: Path) -> None:
    write(tmp_path / "outside.txt", "private")
    (project / "inner.py").symlink_to("main.py")
    assert text(pack(project, environment={}).project, "inner.py") == "print(1)\n"
    (project / "link").symlink_to(tmp_path / "outside.txt")
    with pytest.raises(InputError, match="^link: a link that leads out of the project"):
        pack(project, environment={})
    (project / "link").unlink()
    (project / "folder").symlink_to(project / ".git")
    with pytest.raises(InputError, match="^folder: a folder of another repository, or a link to a folder"):
        pack(project, environment={})


@pytest.mark.parametrize("size", [LIMIT + 1, 11 * LIMIT])
def test_a_package_too_large_names_the_largest_files(project: Path, size: int) -> None:
    (project / "noise.bin").write_bytes(os.urandom(size))
    (project / "more.bin").write_bytes(os.urandom(20_000))
    with pytest.raises(
        InputError, match=r"the most is 5 MB; the largest files: noise.bin \(\d+\.0 MB\), more.bin"
    ) as e:
        pack(project, environment={})
    assert ".gitignore" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("variable", "value", "planted"),
    [
        ("MLFLOW_TRACKING_PASSWORD", "open sesame", "open sesame"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI", "wJalrXUtnFEMI"),
        ("PREFECT_API_AUTH_STRING", "me:thatsasecret", "thatsasecret"),
        ("ASSAY_TRACKING_URI", "postgresql://me:deep-secret@db/x", "deep-secret"),
    ],
)
def test_a_secret_of_the_environment_is_refused_by_name(project: Path, variable: str, value: str, planted: str) -> None:
    assert pack(project, environment={variable: value})
    write(project / "main.py", f"connect({planted!r})\n")
    with pytest.raises(InputError, match=f"^main.py: holds the value of the environment variable {variable}") as told:
        pack(project, environment={variable: value})
    assert planted not in str(told.value)


def test_the_token_of_the_cluster_is_refused_and_what_git_remembers_is_taken_out(git: Git, project: Path) -> None:
    write(project / "ignored/token", "9f1c0b7e5d3a2468")
    known = {"RAY_AUTH_TOKEN_PATH": str(project / "ignored/token")}
    write(project / "main.py", "x = '9f1c0b7e5d3a2468'\n")
    with pytest.raises(InputError, match="^main.py: holds the value of the environment variable RAY_AUTH_TOKEN_PATH"):
        pack(project, environment=known)
    git("commit", "--quiet", "-am", "a mistake")
    write(project / "main.py", "x = None\n")  # the difference shows the line that is gone
    package = pack(project, environment=known)
    said = json.loads(text(package.project, PACKAGE))
    assert "9f1c0b7e5d3a2468" not in said["diff"]
    assert said["redacted"]


def test_settings_with_a_password_are_refused(project: Path) -> None:
    write(project / ".dvc/config", "[core]\n['remote \"store\"']\n    url = https://me:hunter2x@store/x\n")
    with pytest.raises(InputError, match=r"^\.dvc/config, line 3: looks like a password or a token") as told:
        pack(project, environment={})
    assert "hunter2x" not in str(told.value)
