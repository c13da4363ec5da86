"""How a verb runs in a job: its last line is for the program that follows, and no secret of the node is in its log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from assay.submit.follow import END


def test_the_last_line_tells_how_it_ended_and_the_log_holds_no_secret(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("datasets: {}\nexperiments: {}\n")
    secret = "correct-horse-battery"
    node = {**os.environ, "STORE_TOKEN": secret, "ASSAY_CLUSTER": "http://nowhere:1", "ASSAY_PROJECT": "/elsewhere"}
    node["ASSAY_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-m", "assay.cli.in_job", "train", secret]
    done = subprocess.run(command, cwd=tmp_path, env=node, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown experiment '[redacted]'" in done.stderr
    assert secret not in done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    told = json.loads(line.removeprefix(END))
    assert (told["exit_code"], told["result"]) == (2, None)
