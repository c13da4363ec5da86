"""The program under its two names, and a verb under its two names."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from assay.cli import jobs
from assay.cli.failure import FILE
from assay.cli.main import app
from assay.errors import InputError, WorkError
from tests.support.program import call


def test_python_m_assay_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "assay", "tune", "--help"], capture_output=True, text=True, check=True)
    here = CliRunner().invoke(app, ["tune", "--help"], prog_name="python -m assay").stdout
    assert done.stdout.split() == here.split()
    wrong = subprocess.run([sys.executable, "-m", "assay", "trian"], capture_output=True, text=True)
    assert wrong.returncode == 2


def help_of(*words: str) -> list[str]:
    """The help without its first line, which names the verb."""
    return CliRunner().invoke(app, [*words, "--help"]).stdout.split("\n", 2)[2:]


def test_search_is_another_name_of_tune_with_the_same_options() -> None:
    assert help_of("search") == help_of("tune")
    assert "--candidates" in help_of("tune")[0]
    assert "The same as `tune`." in CliRunner().invoke(app, ["--help"]).stdout


def parse(*words: str) -> Any:
    return jobs.parse_command(get_command(app), list(words))


def test_both_names_are_the_same_work_for_a_cluster() -> None:
    words = ("hpo", "--minutes", "3", "--new")
    assert parse("search", *words) == parse("tune", *words)
    assert parse("search", *words).words == ("tune", *words)
    assert parse("search", *words).options["minutes"] == 3


def test_an_error_of_the_system_is_one_line_for_people_and_for_flows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: Path) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/disk/file")

    (tmp_path / "params.yaml").touch()
    monkeypatch.setattr("assay.config.params.load_params", full)
    report = tmp_path / "error.json"
    environment = {**os.environ, "ASSAY_PROJECT": str(tmp_path), FILE: str(report)}
    done = call(["data", "list"], tmp_path, environment)
    line = "/disk/file: the disk is full: make room on its file system, then give the same command again"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {line}\n")
    assert json.loads(report.read_text()) == {"code": 1, "message": line, "retry": False}
    with pytest.raises(WorkError) as shown:
        call(["--debug", "data", "list"], tmp_path, environment)
    assert isinstance(shown.value.__cause__, OSError)


def test_trial_without_apply_is_refused() -> None:
    with pytest.raises(InputError, match="--trial needs --apply"):
        CliRunner().invoke(app, ["tune", "hpo", "--trial", "3"], catch_exceptions=False)
