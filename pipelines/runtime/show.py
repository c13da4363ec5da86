"""The result of a flow, for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.progress import plain_console
from assay.usecases.helpers.results import ExperimentResults


def show_training(experiment: str, summary: dict[str, Any], seconds: float) -> None:
    """Print what was measured, decided and kept, in one table."""
    from rich.table import Table

    train, model, trained = summary["train"], summary["model"], f"train@{experiment}" in summary["ran"]
    rows = {name: f"{value:.4f}" for name, value in summary["metrics"].items()}
    rows |= {
        "model": f"{model['model']} version {model['version']}"
        + (f", alias {model['alias']}" if model["alias"] else ""),
        "gate": f"{model['decision']}: {'; '.join(model['reasons'])}",
        "dataset": f"{train['dataset']['name']} {train['dataset']['hash']}",
        "run": train["run_id"],
        "weights": f"sha256 {train['weights_sha256']}",
        "seconds": f"{seconds:.1f}",
        "pictures": f"{ExperimentResults.of(Path(), experiment).pictures}/",
        "look next": "assay ui",
    }
    if not trained:
        rows["new"] = "nothing: every stage was unchanged (0 training steps, 0 new runs, 0 new versions)"
    grid = Table(title=experiment, show_header=False, title_justify="left")
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, value)
    plain_console().print(grid)
