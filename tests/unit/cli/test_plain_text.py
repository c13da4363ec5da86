"""Names, paths and reasons are shown as they are, whatever Rich would take them for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.cli import data, jobs, models, runs, services, train, tune, ui
from assay.cli.output import present
from pipelines.runtime.schedule import _table as schedules_table
from pipelines.runtime.show import show_training

REPOSITORY = Path(__file__).parents[3]
ODD = "/data/[x]/[/bold] [red]7[/red] :warning:"
RUN = {"run_id": ODD, "status": ODD, "reason": ODD, "experiment": ODD, "started": "2026", "metrics": {"val/[x]": 1.0}}
SCHEDULE = {"name": ODD, "flow": "f", "target": ODD, "cron": ODD, "timezone": ODD, "paused": True, "next": []}
DATASET = {
    "name": ODD, "kind": ODD, "hash": ODD, "samples": 1, "annotation": ODD, "boxes": None, "classes": [ODD],
    "rejected": [], "state": ODD,
}  # fmt: skip
TRAINED = {
    "run_id": ODD, "status": ODD, "metrics": {ODD: 1.0}, "steps": 1, "trained_steps": 1, "seconds": 1.0,
    "weights_sha256": ODD, "dataset": {"name": ODD, "hash": ODD},
}  # fmt: skip
SEARCHED = {
    "search_id": ODD, "search": "s", "reason": ODD, **dict.fromkeys(("finished", "stopped", "failed", "over"), 1),
    "epochs": 1, "seconds": 1.0, "best": {"run_id": ODD, "metrics": {"cost/[x]": 1.0}, "config": {ODD: ODD}},
    "objectives": [ODD], "front": [{"trial": n, "metrics": {ODD: 1.0, "cost/[x]": 1.0}} for n in range(2)],
}  # fmt: skip

SERVICES = dict.fromkeys(("mlflow", "user", "prefect", "ray", "credentials_file", "ray_token_file"), ODD)


@pytest.mark.parametrize(
    ("render", "result", "times"),
    [
        (models.decision_table, {"model": ODD, "version": 1, "decision": ODD, "alias": ODD, "reasons": [ODD]}, 4),
        (models._predictions_table, {"predictions": [{ODD: ODD}]}, 2),
        (train.run_table, TRAINED, 6),
        (train.evaluation_table, {"run_id": ODD, "metrics": {ODD: 1.0}}, 2),
        (tune.search_report, SEARCHED, 6),
        (tune._candidates, {"candidates": [{"costs": {"[x]": 1.0}, "config": {ODD: ODD}, "over": [ODD]}]}, 3),
        (runs._table, {"runs": [RUN]}, 4),
        (data._summary, DATASET, 4),
        (data._render_list, {"datasets": [DATASET]}, 4),
        (jobs._jobs_table, {"jobs": [{"job_id": ODD, "command": ODD}]}, 2),
        (services._pages, SERVICES, 6),
        (ui._render, {"url": ODD, "credentials_file": ODD, "user": ODD}, 3),
        (schedules_table, {"schedules": [SCHEDULE]}, 4),
    ],
)  # fmt: skip
def test_a_table_shows_text_as_it_is(
    render: Callable[[Any], Any], result: dict[str, Any], times: int, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("assay.cli.output.WIDE", 2000)
    present(result, False, render)
    assert capsys.readouterr().out.count(ODD) == times


def test_the_result_of_a_flow_shows_text_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    model = {"model": ODD, "version": 1, "alias": ODD, "decision": ODD, "reasons": [ODD]}
    show_training(ODD, {"train": TRAINED, "model": model, "ran": [], "metrics": {ODD: 1.0}}, 1.0)
    assert capsys.readouterr().out.count(ODD) >= 9


def test_every_console_is_a_plain_one() -> None:
    made = [
        path.relative_to(REPOSITORY).as_posix()
        for room in ("platform", "pipelines")
        for path in (REPOSITORY / room).rglob("*.py")
        if re.search(r"\bConsole\(|rich import print|rich\.markup", path.read_text())
    ]
    assert made == ["platform/assay/progress.py"]
