"""The same seed twice, and killed with -9 and resumed: the sha256 of the weights, with one worker and with two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import BIN, assay, assign, environment, figure, fresh_clone, run

EPOCHS = 8


def main() -> None:
    for workers in (1, 2):
        with fresh_clone() as clone:
            run(clone, "dvc", "repro", "-q", "data@digits")
            chosen = assign(f"train.epochs={EPOCHS}", "train.checkpoint_seconds=0.5")
            arguments = ["train", "digits", "--workers", str(workers), *chosen]
            kill(clone, arguments)
            resumed = assay(clone, *arguments)
            again = [assay(clone, *arguments, "--new") for _ in range(2)]
            hashes = [record["weights_sha256"] for record in (resumed, *again)]
            figure(
                f"weights of a killed and resumed run and of two whole ones, {workers} worker(s)",
                equal=len(set(hashes)) == 1,
                sha256=hashes,
                resumed_from=resumed["resumed_from"],
                steps=resumed["steps"],
            )


def kill(clone: Path, arguments: list[str]) -> None:
    """Start a training and kill its whole process group once it has a checkpoint."""
    command = [str(BIN / "assay"), *arguments]
    child = subprocess.Popen(
        command, cwd=clone, env=environment(clone), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not list(clone.glob(".assay/runs/*/checkpoints/step-*")):
        if child.poll() is not None:
            sys.exit("the training ended before it could be killed")
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


if __name__ == "__main__":
    main()
