"""The tracking server refusing or hanging, object storage hanging, in mid-run: the pace, and every point once."""

from __future__ import annotations

import sqlite3
import statistics
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from benchmarks.chaos.tools.project import end, said_in, start, template
from benchmarks.chaos.tools.servers import object_storage, tracking_server
from benchmarks.common import assay, figure, spread

NAME = "digits-0"
AROUND = 15.0
"""Seconds of training before and after the cut, to compare with."""
CUTS = (("tracking server", tracking_server, False), ("tracking server", tracking_server, True),
        ("object storage", object_storage, True))  # fmt: skip
"""What is cut, and whether it hangs instead of refusing."""


def main(seconds: str = "60") -> None:
    for what, serve, hanging in CUTS:
        with template(["digits"]) as project, serve(project) as server:
            per_epoch = _seconds_per_epoch(project)
            epochs = int((2 * AROUND + float(seconds)) / per_epoch) + 1
            words = ["train", NAME, "--new", "--set", f"train.epochs={epochs}", "--set", "train.checkpoint_seconds=5"]
            began = time.monotonic()
            child = start(project, [sys.executable, "-m", "assay", *words], server.variables)
            _wait_for_training(project, child)
            time.sleep(AROUND)
            first = time.time()
            server.cut(hanging)
            time.sleep(float(seconds))
            last = time.time()
            server.back(hanging)
            ended = end(project, child, began, 600)
            assert ended.code == 0, ended.said[-1000:]
            kind = "hanging" if hanging else "refusing"
            figure(
                f"chaos cut, {what} {kind} for {float(seconds):.0f} s", epochs=epochs, **_found(project, first, last)
            )


def _seconds_per_epoch(project: Path) -> float:
    """Of a training of some epochs, without what it takes to start."""
    record = assay(project, "train", NAME, "--new", "--set", "train.epochs=40")
    values = _points(project, record["run_id"], "time/epoch_seconds")
    return statistics.median(value for _, value, _ in values) * 1.5  # with the evaluation


def _wait_for_training(project: Path, child: object) -> None:
    limit = time.monotonic() + 60
    while "step" not in said_in(project).read_text(errors="replace"):
        assert time.monotonic() < limit, said_in(project).read_text()
        time.sleep(0.1)


def _points(project: Path, run_id: str | None, key: str) -> list[tuple[int, float, float]]:
    """(step, value, seconds since 1970) of a metric, of the newest run unless one is named."""
    with closing(sqlite3.connect(project / ".assay/mlflow.db", timeout=60)) as store:
        if run_id is None:
            (run_id,) = store.execute("SELECT run_uuid FROM runs ORDER BY start_time DESC LIMIT 1").fetchone()
        rows = store.execute(
            "SELECT step, value, timestamp / 1000.0 FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step",
            (run_id, key),
        )
        return list(rows)


def _found(project: Path, first: float, last: float) -> dict[str, object]:
    """How often points are there, and the time of a step during the cut against before and after."""
    points = _points(project, None, "train/loss")
    evaluations = _points(project, None, "val/loss")
    doubled = sum(count - 1 for name in (points, evaluations) for count in Counter(row[0] for row in name).values())
    gaps = Counter(later[0] - earlier[0] for earlier, later in zip(evaluations, evaluations[1:], strict=False))
    paces = [
        ((b[2] - a[2]) / (b[0] - a[0]), first < a[2] and b[2] < last)
        for a, b in zip(evaluations, evaluations[1:], strict=False)
    ]
    during = [pace for pace, inside in paces if inside]
    around = statistics.median(pace for pace, inside in paces if not inside)
    return {
        "evaluations": len(evaluations),
        "missing": sum(gaps.values()) - gaps.most_common(1)[0][1],
        "points": len(points),
        "doubled": doubled,
        "step_seconds_ratio": spread([pace / around for pace in during]),
    }
