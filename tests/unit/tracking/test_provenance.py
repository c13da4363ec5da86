"""A run can be traced to its code, its data and its settings, and carries no secret."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.config.experiment import ExperimentConfig
from assay.errors import InputError
from assay.inputs import Inputs, code_sha256
from assay.tracking import provenance
from assay.tracking.provenance import (
    PREFIX,
    REQUIRED,
    collect,
    fingerprint,
    git_state,
    inputs_sha256,
    installed,
    missing,
    redact,
)
from tests.support.files import write_files
from tests.support.tiny_task import Config


@pytest.fixture
def project(git: Any, tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "project"
    git("init", "--quiet")
    (folder / "main.py").write_text("print(1)\n")
    (folder / ".gitignore").write_text("ignored/\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    return folder


def test_no_repository_and_no_commit_are_refused_with_the_mend(git: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a git repository: run `git init` and commit"):
        git_state(tmp_path / "project")
    git("init", "--quiet")
    with pytest.raises(InputError, match="no commit yet: commit"):
        git_state(tmp_path / "project")


def test_a_difference_that_git_cannot_tell_is_an_error_not_a_clean_tree(git: Any, project: Path) -> None:
    (project / "main.py").write_text("print(2)\n")
    (project / ".gitattributes").write_text("*.py filter=missing\n")
    git("config", "filter.missing.clean", "no-such-filter")
    git("config", "filter.missing.required", "true")
    with pytest.raises(InputError, match=r"`git diff` fails \(error: cannot run no-such-filter"):
        git_state(project)
    (project / ".gitattributes").unlink()
    index = project / ".git" / "index"
    index.write_bytes(b"DAMAGED" + index.read_bytes()[7:])
    with pytest.raises(InputError, match="fails .error: bad signature"):
        git_state(project)


def test_names_and_text_in_other_encodings_are_recorded(project: Path) -> None:
    (project / "main.py").write_bytes(b"print('caf\xe9')\n")
    Path(os.fsdecode(bytes(project) + b"/caf\xe9.py")).write_text("x = 1\n")
    _, diff = git_state(project)
    assert "x = 1" in diff
    assert "print('caf\ufffd')" in diff
    diff.encode()


def test_without_git_there_is_a_plain_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="git is not installed"):
        git_state(tmp_path)


def test_a_clean_tree_is_its_commit(git: Any, project: Path) -> None:
    assert git_state(project) == (git("rev-parse", "HEAD").strip(), "")
    (project / "ignored").mkdir()
    (project / "ignored" / "x.py").write_text("secret")
    (project / "dvc.lock").write_text("data: 1\n")
    assert git_state(project)[1] == ""


def test_a_recorded_dvc_lock_is_left_out_and_nothing_else(git: Any, project: Path) -> None:
    (project / "dvc.lock").write_text("data: 1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "two")
    (project / "dvc.lock").write_text("data: 2\n")
    assert git_state(project)[1] == ""
    (project / "main.py").write_text("print(2)\n")
    assert "dvc.lock" not in git_state(project)[1]
    assert "+print(2)" in git_state(project)[1]


@pytest.mark.parametrize("staged", [False, True])
def test_changes_are_shown_staged_or_not(git: Any, project: Path, staged: bool) -> None:
    (project / "main.py").write_text("print(2)\n")
    (project / ".gitignore").unlink()
    if staged:
        git("add", ".")
    _, diff = git_state(project)
    assert "-print(1)\n+print(2)\n" in diff
    assert "deleted file" in diff


@pytest.mark.parametrize("name", ["new.py", "é 🙂.py", 'quo"te.py', "two\nlines.py", "sub/new.yaml"])
def test_new_source_is_carried_whole(project: Path, name: str) -> None:
    path = project / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x = 'first'\n")
    one = git_state(project)[1]
    assert one == f"+++ {name}\nx = 'first'\n\n"
    path.write_text("x = 'other'\n")
    assert git_state(project)[1] != one


@pytest.mark.parametrize("name", ["weights.bin", "bild-ä.png"])
def test_new_files_of_other_kinds_are_carried_as_hashes(project: Path, name: str) -> None:
    (project / name).write_bytes(b"\0\1\2")
    assert git_state(project)[1] == f"+++ {name}: sha256 {hashlib.sha256(bytes(range(3))).hexdigest()}\n"
    (project / name).unlink()
    (project / name).symlink_to("nowhere")
    assert git_state(project)[1] == f"+++ {name}: no regular file\n"


@pytest.mark.parametrize("path", ["raw/pets", "{root}/raw/pets"])
def test_raw_data_in_the_project_are_left_out(git: Any, project: Path, path: str) -> None:
    """They have the hash of their dataset; 16,000 images would be hashed for each run and carried as as many lines."""
    source = {"kind": "image_folder", "path": path.format(root=project), "sha256": ""}
    datasets = {"pets": {"source": source}, "digits": {"source": {"kind": "digits"}}, "far": {"source": {"path": "/x"}}}
    (project / "params.yaml").write_text(json.dumps({"datasets": datasets}))
    (project / ".gitignore").write_text("params.yaml\n")
    git("commit", "--quiet", "-am", "two")
    files = {"raw/pets/cat/1.png": "1", "raw/pets/labels.yaml": "2", "raw/notes.yaml": "3\n", "raw/pets2.bin": "4"}
    write_files(project, files)
    known = hashlib.sha256(b"4").hexdigest()
    assert git_state(project)[1] == f"+++ raw/notes.yaml\n3\n\n+++ raw/pets2.bin: sha256 {known}\n"
    git("add", "raw")
    assert "pets/" not in git_state(project)[1]
    for broken in ("datasets: 3\n", "datasets: {pets: 1}\n", "{", "datasets: {pets: {source: {path: 3}}}\n"):
        (project / "params.yaml").write_text(broken)
        assert "raw/pets/labels.yaml" in git_state(project)[1]


def test_many_new_files_that_are_no_code_are_counted_and_not_read(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(project, {f"images/{index:03d}.png": "x" for index in range(101)} | {"images/make.py": "x = 1\n"})
    monkeypatch.delattr(hashlib, "file_digest")
    expected = "+++ images/make.py\nx = 1\n\n+++ 101 other new files, such as images/000.png\n"
    assert git_state(project)[1] == expected


def test_large_source_is_carried_as_a_hash(project: Path) -> None:
    (project / "table.yaml").write_text("x" * 200_000)
    assert git_state(project)[1].startswith("+++ table.yaml: sha256 ")


def test_a_project_below_the_repository_sees_its_own_part(git: Any, project: Path) -> None:
    (project / "inner").mkdir()
    (project / "inner" / "a.py").write_text("a\n")
    (project / "outside.py").write_text("b\n")
    assert git_state(project / "inner")[1] == "+++ a.py\na\n\n"


@pytest.mark.parametrize(
    "text",
    [
        'PASSWORD = "hunter2secret"',
        "password: hunter2secret",
        "db_passwd=hunter2secret",
        "+  api_key: 'hunter2secret'",
        '{"apikey": "hunter2secret"}',
        "AWS_SECRET_ACCESS_KEY=hunter2secret",
        "access_key_id = hunter2secret",
        "GITHUB_TOKEN=hunter2secret",
        "client_secret='hunter2secret'",
        "uri: postgresql://anna:hunter2secret@db.example.org:5432/mlflow",
        "git clone https://oauth2:hunter2secret@github.com/a/b",
    ],
)
def test_secrets_are_taken_out(text: str) -> None:
    clean = redact(f"before\n{text}\nafter\n")
    assert "hunter2secret" not in clean
    assert "[redacted]" in clean
    assert clean.startswith("before\n")
    assert clean.endswith("\nafter\n")


@pytest.mark.parametrize("text", ["lr = 0.1", "https://example.org:8080/a@b", "s3://bucket/key", "x: int = 3  # a@b.c"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def config(**changes: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"task": Config(), "data": "points", **changes})


def test_the_inputs_change_with_everything_but_the_gate() -> None:
    base = inputs_sha256(config(), "d1", Inputs("c1", {}, {}))
    assert inputs_sha256(config(gate={"min": {"test/loss": 0.1}, "tolerance": 0.5}), "d1", Inputs("c1", {}, {})) == base
    assert inputs_sha256(config(seed=0), "d1", Inputs("c1", {}, {})) == base
    others = [
        inputs_sha256(config(), "d2", Inputs("c1", {}, {})),
        inputs_sha256(config(), "d1", Inputs("c2", {}, {})),
        inputs_sha256(config(), "d1", Inputs("c1", {"weights.safetensors": "ab"}, {})),
        inputs_sha256(config(seed=1), "d1", Inputs("c1", {}, {})),
        inputs_sha256(config(data="other"), "d1", Inputs("c1", {}, {})),
        inputs_sha256(config(task=Config(dropout=0.2)), "d1", Inputs("c1", {}, {})),
        inputs_sha256(config(optimizer={"lr": 0.5}), "d1", Inputs("c1", {}, {})),
        inputs_sha256(config(train={"workers": 2}), "d1", Inputs("c1", {}, {})),
        inputs_sha256(config(train={"precision": "bf16"}), "d1", Inputs("c1", {}, {})),
    ]
    assert len({base, *others}) == len(others) + 1


def test_the_fingerprint_counts_the_libraries_too() -> None:
    base = fingerprint("inputs", {"torch": "2.14.1", "numpy": "2.4.6"})
    assert fingerprint("inputs", {"numpy": "2.4.6", "torch": "2.14.1"}) == base
    assert fingerprint("inputs", {"torch": "2.14.2", "numpy": "2.4.6"}) != base
    assert fingerprint("other", {"torch": "2.14.1", "numpy": "2.4.6"}) != base


def test_the_code_of_a_task_is_all_files_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "acme_code" / "counting"
    (folder / "parts").mkdir(parents=True)
    for name in ("config.py", "task.py", "parts/head.py"):
        (folder / name).write_text(f"# {name}\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = {code_sha256("acme_code.counting")}
    for name in ("config.py", "task.py", "parts/head.py", "new.py"):
        (folder / name).write_text("x = 1\n" + name)
        seen.add(code_sha256("acme_code.counting"))
    assert len(seen) == 5
    (folder / "README.md").write_text("words")
    assert code_sha256("acme_code.counting") in seen
    assert code_sha256("classification") not in seen
    assert code_sha256("classification") == code_sha256("classification")


def test_a_run_carries_everything_that_registering_asks_for(git: Any, project: Path) -> None:
    (project / "main.py").write_text("API_KEY = 'hunter2secret'\n")
    dataset: Any = SimpleNamespace(
        hash="abc.dir", card=SimpleNamespace(classes=["a", "b"], model_dump_json=lambda **_: "{}")
    )
    machine = {"world_size": "2", "threads": "1", "device": "cpu"}
    made = collect(project, "digits", config_of_a_shipped_task(), dataset, machine)
    tags = {PREFIX + name: value for name, value in made.tags.items()}
    assert missing(tags) == []
    assert made.tags["commit"] == git("rev-parse", "HEAD").strip()
    assert (made.tags["dirty"], made.tags["dataset_hash"], made.tags["world_size"]) == ("true", "abc.dir", "2")
    assert all(isinstance(value, str) for value in made.tags.values())
    assert "hunter2secret" not in str(made)
    assert made.packages["torch"]
    git("checkout", "--quiet", ".")
    clean = collect(project, "digits", config_of_a_shipped_task(), dataset, machine)
    assert clean.tags["dirty"] == "false"
    assert clean.tags["diff_sha256"] != made.tags["diff_sha256"]
    assert clean.tags["fingerprint"] == made.tags["fingerprint"]


def config_of_a_shipped_task() -> ExperimentConfig:
    return config(task={"name": "classification"})


def test_what_a_run_lacks_is_named() -> None:
    tags = {PREFIX + name: "x" for name in REQUIRED}
    assert missing(tags) == []
    assert missing({**tags, PREFIX + "commit": ""}) == ["commit"]
    del tags[PREFIX + "seed"], tags[PREFIX + "device"]
    assert missing(tags) == ["seed", "device"]
    assert missing({}) == list(provenance.REQUIRED)


def test_packages_are_listed_whatever_their_metadata_look_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib_metadata  # noqa: F401 - MLflow imports it, and then it finds the packages, and is stricter

    first, second = tmp_path / "first", tmp_path / "second"
    files = {
        "first/plain-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: Plain\nVersion: 1\n\nName: other\n",
        "second/plain-9.dist-info/METADATA": "Name: plain\nVersion: 9\n",
        "first/lower-1.dist-info/METADATA": "name: lower\nversion: 2\n\nVersion: 9\n",
        "first/old-3.egg-info": "Name: old\nVersion: 3\n",
        "first/folder-4.egg-info/PKG-INFO": "Name: folder\nVersion: 4\n",
        "first/nameless-5.dist-info/METADATA": "Version: 5\n\nName: not-mine\n",
        "first/~broken-6.dist-info/RECORD": "",
    }
    write_files(tmp_path, files)
    monkeypatch.setattr(sys, "path", [str(first), str(second)])
    assert installed() == {"folder": "4", "lower": "2", "old": "3", "plain": "1"}


def test_a_name_with_a_carriage_return_is_recorded_as_it_is(project: Path) -> None:
    (project / "a\rb.py").write_text("x = 1\n")
    assert "x = 1" in git_state(project)[1]
