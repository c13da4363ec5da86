"""The file that `ASSAY_ERROR_FILE` names says why a program failed, and whether trying again can help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assay.cli.failure import FILE, failure_reported
from assay.errors import InputError, Unavailable, WorkError


def told(monkeypatch: pytest.MonkeyPatch, path: Path, error: BaseException | None) -> Any:
    monkeypatch.setenv(FILE, str(path))
    try:
        with failure_reported():
            assert FILE not in os.environ
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error  # noqa: PT017
    return json.loads(path.read_text()) if path.exists() else None


def test_each_end_has_its_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "error.json"
    assert told(monkeypatch, file, None) is None
    assert told(monkeypatch, file, SystemExit(0)) is None
    assert told(monkeypatch, file, InputError("no such key")) == {"code": 2, "message": "no such key", "retry": False}
    assert told(monkeypatch, file, WorkError("the loss diverged"))["retry"] is False
    assert told(monkeypatch, file, Unavailable("no answer"))["retry"] is True
    assert told(monkeypatch, file, SystemExit(2))["code"] == 2
    assert "TypeError: wrong" in told(monkeypatch, file, TypeError("wrong"))["message"]


def test_a_secret_is_not_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    error = Unavailable("no answer from postgres://me:hunter2hunter2@host/db")
    assert "hunter2" not in told(monkeypatch, tmp_path / "error.json", error)["message"]


def test_a_killed_program_leaves_the_report_that_it_was_killed(tmp_path: Path) -> None:
    file = tmp_path / "error.json"
    code = "import os; from assay.cli.failure import failure_reported\nwith failure_reported(): os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, FILE: str(file), "PYTHONPATH": "platform"})
    assert done.returncode == -signal.SIGKILL
    assert json.loads(file.read_text())["retry"] is True
