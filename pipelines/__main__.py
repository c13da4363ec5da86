"""`python -m pipelines train-and-promote EXPERIMENT ...`: a flow from the command line, with nothing running before."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from assay.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _flows() -> None:
    """The flows of this project."""


@app.command("train-and-promote")
def train_and_promote(experiments: list[str]) -> None:
    """Data, training, evaluation and registration of experiments, one after the other; what is unchanged is skipped."""
    from assay.config import load_params
    from assay.settings import Settings

    settings = Settings()
    params = load_params(settings.params_file)
    datasets = {name: params.experiment(name).data for name in experiments}
    prepare(settings)
    from pipelines.train_and_promote import train_and_promote as flow

    for name, dataset in datasets.items():
        started = time.monotonic()
        summary = flow(str(settings.root), name, dataset)
        show(name, summary, time.monotonic() - started)


@app.command("nightly-search")
def nightly_search(
    search: str, minutes: float = typer.Option(60.0, min=0.1, help="The most that the search works now.")
) -> None:
    """A search within a budget of minutes; the next time, it goes on where it stopped."""
    from assay.config import load_params
    from assay.settings import Settings

    settings = Settings()
    params = load_params(settings.params_file)
    dataset = params.experiment(params.search(search).experiment).data
    prepare(settings)
    from pipelines.nightly_search import nightly_search as flow

    record = flow(str(settings.root), search, dataset, minutes)
    best = record["best"]
    typer.echo(
        f"{search}: {record['trials']} trials ({record['reason']}); best run {best['run_id']}: {best['metrics']}"
    )


def prepare(settings: Settings) -> None:
    """Let Prefect keep its state in the project, and serve itself where no server is named."""
    from assay.settings import quiet

    quiet()
    home = settings.state / "prefect"
    home.mkdir(parents=True, exist_ok=True)  # Prefect makes one level only
    os.environ.setdefault("PREFECT_HOME", str(home))
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")


def show(experiment: str, summary: dict[str, Any], seconds: float) -> None:
    """The end of the story in one table."""
    from rich.console import Console
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
        "pictures": f"results/{experiment}/pictures/",
        "look next": "assay ui",
    }
    if not trained:
        rows["new"] = "nothing: every stage was unchanged (0 training steps, 0 new runs, 0 new versions)"
    grid = Table(title=experiment, show_header=False, title_justify="left")
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, value)
    Console().print(grid)


def main() -> None:
    """One line and an exit code for each error, as the `assay` program does."""
    from assay.errors import AssayError
    from pipelines.stages import StageFailed

    try:
        app()
    except (AssayError, StageFailed) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 1))


if __name__ == "__main__":
    main()
