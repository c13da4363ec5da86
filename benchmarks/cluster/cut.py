"""The submitter's connection cut for 60 s in mid-training: does the job go on, is a line lost or shown twice?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import BIN, assay, environment, figure, fresh_clone, run
from tests.support.ray_head import HOST, ray_head
from tests.support.wire import Wire

SECONDS = 60.0
EPOCHS = 600


def main(seconds: str = str(SECONDS), epochs: str = str(EPOCHS)) -> None:
    with fresh_clone() as clone:
        run(clone, "dvc", "repro", "-q", "data@digits")
        run(clone, "dvc", "remote", "add", "-q", "-d", "store", str(clone.parent / "store"))
        run(clone, "dvc", "push", "-q", "data@digits")
        with ray_head() as head:
            os.environ.update(head.variables)
            wire = Wire(head.port)
            followed = clone.parent / "followed.txt"
            words = ["train", "digits", "--workers", "0", "--set", f"train.epochs={epochs}"]
            command = [str(BIN / "assay"), "submit", "--address", f"http://{HOST}:{wire.port}", "--", *words]
            with followed.open("w") as file:
                child = subprocess.Popen(
                    command, cwd=clone, env=environment(clone), stdout=subprocess.DEVNULL, stderr=file
                )
            _wait_for("step ", followed, child)
            (job,) = assay(clone, "jobs", "list", "--address", head.address)["jobs"]
            before = _lines(clone, head.address, job["job_id"])
            with wire.cut():
                time.sleep(float(seconds))
                during = len(_lines(clone, head.address, job["job_id"])) - len(before)
            code = child.wait()
            log = _lines(clone, head.address, job["job_id"])
            attached = subprocess.run(
                [str(BIN / "assay"), "jobs", "attach", "--address", head.address, job["job_id"]],
                cwd=clone, env=environment(clone), capture_output=True, text=True,
            )  # fmt: skip
        shown = followed.read_text().splitlines()
        figure(
            f"submitter's connection cut for {float(seconds):.0f} s",
            lines_of_the_log=len(log),
            written_during_the_cut=during,
            lost_by_submit=len(log) - len([line for line in shown if line in set(log)]),
            attach_shows_all=attached.stderr.splitlines() == log,
            told=[line for line in shown if line not in set(log)],
            exit_codes=[code, attached.returncode],
        )


def _wait_for(word: str, file: Path, child: subprocess.Popen[bytes]) -> None:
    while word not in file.read_text():
        if child.poll() is not None:
            sys.exit(f"the job ended too early:\n{file.read_text()}")
        time.sleep(0.2)


def _lines(clone: Path, address: str, job_id: str) -> list[str]:
    lines: list[str] = assay(clone, "jobs", "logs", "--address", address, job_id)["lines"]
    return lines


if __name__ == "__main__":
    main(*sys.argv[1:])
