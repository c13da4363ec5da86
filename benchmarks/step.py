"""A training step of one worker through Ray and Assay, against the same network, data and threads in a bare loop.

The arms take turns, the plain one first; an arm's step time is its median epoch without the first third (while Ray's
agents still start up), over its number of steps. Evaluation and checkpoints lie outside of both arms' clocks.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path

import numpy as np

from benchmarks.common import REPOSITORY, assay, assign, figure, fresh_clone, run, spread

ROUNDS, EPOCHS, WARM = 5, 60, 20


def main() -> None:
    plain, ours = [], []
    cores = len(os.sched_getaffinity(0))  # what `assay train` gives to one worker
    with fresh_clone() as clone:
        run(clone, "dvc", "repro", "-q", "data@digits")
        save_images(clone)
        for number in range(ROUNDS):
            script = str(REPOSITORY / "benchmarks/bare_digits.py")
            bare = json.loads(run(clone, sys.executable, script, "images.npz", str(cores), str(EPOCHS)))
            threads, seconds, steps = assay_arm(clone, number)
            assert threads == bare["threads"], f"threads differ: {threads} and {bare['threads']}"
            plain.append(statistics.median(bare["epoch_seconds"][WARM:]) / steps)
            ours.append(seconds / steps)
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    milliseconds = {"plain": spread([1000 * s for s in plain]), "assay": spread([1000 * s for s in ours])}
    figure("step ratio, one worker, Ray and Assay to bare PyTorch", **spread(ratios), milliseconds=milliseconds)


def save_images(clone: Path) -> None:
    """The training split as arrays, for the plain arm."""
    from assay.data.dataset import open_dataset
    from assay.data.images import decode

    packed = open_dataset(clone, "digits", clone / "data/digits").split("train")
    images = np.stack([decode(bytes(packed.image(i)), 1) for i in range(len(packed))])
    np.savez(clone / "images.npz", images=images, labels=np.asarray(packed.column("label"), dtype=np.int64))


def assay_arm(clone: Path, seed: int) -> tuple[int, float, int]:
    """(threads, median epoch seconds, steps in an epoch) of a one-worker run on Ray without augmentation."""
    still = assign("task.augment.shift=0", "task.augment.rotate=0", "task.augment.scale=0", f"seed={seed}")
    record = assay(clone, "train", "digits", "--workers", "1", *assign(f"train.epochs={EPOCHS}"), *still)
    from assay.settings import Settings
    from assay.tracking.tracker import Tracker

    tracker = Tracker(Settings(project=clone))
    history = tracker._client.get_metric_history(record["run_id"], "time/epoch_seconds")
    threads = int(tracker.get(record["run_id"]).data.tags["assay.threads"])
    seconds = [point.value for point in sorted(history, key=lambda point: point.step)][WARM:]
    return threads, statistics.median(seconds), record["steps"] // EPOCHS


if __name__ == "__main__":
    main()
