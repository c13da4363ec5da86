"""`python -m tests.support.launching FOLDER EPOCHS`: trains the digits on two workers of a Ray of its own.

FOLDER becomes a project with nothing but the data and the run. The outcome goes to standard output, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from assay.config.dataset import DatasetConfig
from assay.config.experiment import ExperimentConfig
from assay.config.schema import resolved
from assay.data.dataset import prepare
from assay.data.version import folder_hash
from assay.errors import AssayError
from assay.inputs import Inputs
from assay.program import start_program
from assay.settings import Settings
from assay.workers.assignment import Assignment
from assay.workers.launch import launch
from assay.workers.plan import Plan

WORKERS = 2


def main(root: Path, epochs: int) -> None:
    start_program()
    data = root / "data/digits"
    (root / "params.yaml").touch()
    if not data.exists():
        config = DatasetConfig.model_validate({"source": {"kind": "digits"}})
        prepare(root, "digits", config, data, lambda *_: None)
    train = {"epochs": epochs, "batch_size": 64, "workers": WORKERS, "checkpoint_seconds": 0}
    task = {"name": "classification", "architecture": "small_cnn", "image_size": 8}
    experiment = ExperimentConfig.model_validate({"task": task, "data": "digits", "train": train})
    folder = root / ".assay/runs/r"
    folder.mkdir(parents=True, exist_ok=True)
    inputs = Inputs.here(root, "classification", []).plain()
    run = Assignment("r", resolved(experiment), str(root), folder_hash(data, None)[0], str(folder), 1, False, inputs)

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    try:
        outcome = launch(run, Plan(WORKERS, "cpu", 1), Settings(project=root), lambda: None, say)
    except AssayError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    sys.stdout.write(json.dumps(outcome))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
