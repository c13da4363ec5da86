"""`python -m tests.support.two_workers RANK FOLDER STEPS`: one of two real processes that train every experiment.

FOLDER holds the datasets; rank 0 leaves `losses-STEPS.json` there, what each step of each experiment reported, and
`metrics-STEPS.json`, those of evaluations of so many samples.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as distributed

from assay.program import start_program
from assay.train.distributed_context import DistributedContext
from assay.train.prepare import be_deterministic
from tests.support.families import EXPERIMENTS, evaluated, losses, opened, small

BATCH = 4
"""Samples a step of both workers together."""
COUNTS = (11, 1)
"""Of the samples to evaluate: one worker has more than the other, or all of them."""


def main(rank: int, folder: Path, steps: int) -> None:
    start_program()
    be_deterministic(threads=1)
    store = distributed.FileStore(str(folder / f"store-{steps}"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    context = DistributedContext(folder, torch.device("cpu"), 1, rank, 2)
    found, metrics = {}, {}
    for name in EXPERIMENTS:
        config = small(name, BATCH)
        found[name] = losses(config, opened(config, folder), context, steps)
        metrics[name] = [dict(evaluated(config, opened(config, folder), context, count)) for count in COUNTS]
    distributed.barrier()
    distributed.destroy_process_group()
    if rank == 0:
        (folder / f"losses-{steps}.json").write_text(json.dumps(found))
        (folder / f"metrics-{steps}.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
