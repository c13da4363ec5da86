"""Who ends a cluster knows whom to ask first: the living processes that noted that they use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from assay.services.processes import find_workloads
from assay.state import SERVICES_STATUS, state_folder
from assay.workers.joined import JOINED, join_noted, joined

HERE = "127.0.0.1:6379"


def test_only_living_processes_at_that_address_are_found(tmp_path: Path) -> None:
    for name in ("here", "there", "dead", "torn", "alone"):
        (tmp_path / name).mkdir()
    with (
        join_noted(tmp_path / "here", HERE),
        join_noted(tmp_path / "there", "10.0.0.1:1"),
        join_noted(tmp_path / "alone", None),
    ):
        gone = json.loads((tmp_path / "here" / JOINED).read_text())
        gone["owner"]["started"] -= 1
        (tmp_path / "dead" / JOINED).write_text(json.dumps(gone))
        (tmp_path / "torn" / JOINED).write_text('{"addr')
        assert joined(tmp_path, HERE) == {"here": os.getpid()}
    assert joined(tmp_path, HERE) == {}


PROGRAM = """
import sys
from pathlib import Path
from assay.workers.joined import join_noted
with join_noted(Path(sys.argv[1]), sys.argv[2]):
    print(flush=True)
    input()
"""


def test_the_end_of_the_services_asks_a_training_of_a_terminal_to_save(tmp_path: Path) -> None:
    state, run = state_folder(tmp_path), state_folder(tmp_path) / "runs" / "r1"
    run.mkdir(parents=True)
    (state / SERVICES_STATUS).write_text(json.dumps({"addresses": {"ray": HERE}}))
    command = [sys.executable, "-c", PROGRAM, str(run), HERE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as training:
        assert training.stdout is not None
        training.stdout.readline()
        (found,) = find_workloads(tmp_path)
        assert (found.name, found.first.pid) == ("run r1", training.pid)
        found.ask_to_end()
        assert training.wait(30) == -15
