"""`python -m pipelines schedule list|apply|pause|resume|run`: thin; what is done is in `deployments.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from assay.cli.output import AsJson

app = typer.Typer(help="Schedules of params.yaml.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """All schedules, with their next runs."""

    def show(deployments: Any, settings: Any, params: Any) -> dict[str, Any]:
        rows = deployments.rows(settings, params)
        if any(row["applied"] is None for row in rows):
            typer.echo(f"{deployments.missing_server()}; this is from params.yaml alone", err=True)
        return {"schedules": rows}

    _do(show, _table, as_json)


@app.command()
def apply(as_json: AsJson = False) -> None:
    """Create, update and delete deployments until the server agrees with params.yaml."""
    _do(
        lambda deployments, settings, params: deployments.apply(settings, params),
        lambda result: "\n".join(f"{name}: {done}" for name, done in result["applied"].items()) or "no schedules",
        as_json,
    )


@app.command()
def pause(name: Name, as_json: AsJson = False) -> None:
    """Start no more runs."""
    _switch(name, True, as_json)


@app.command()
def resume(name: Name, as_json: AsJson = False) -> None:
    """Start runs again."""
    _switch(name, False, as_json)


@app.command()
def run(name: Name, as_json: AsJson = False) -> None:
    """Run it now, by the server's worker or here."""
    _do(
        lambda deployments, settings, params: deployments.run_now(settings, params, name),
        lambda result: f"{result['name']}: {result['message']}",
        as_json,
    )


def _switch(name: str, paused: bool, as_json: bool) -> None:
    _do(
        lambda deployments, _settings, params: deployments.switch(params, name, paused),
        lambda result: f"{result['name']}: {'paused' if result['paused'] else 'resumed'}",
        as_json,
    )


def _do(work: Callable[..., dict[str, Any]], render: Callable[[Any], Any], as_json: bool) -> None:
    """Check params.yaml, name Prefect's folders, do the work and print what came of it."""
    from contextlib import nullcontext

    from assay.cli.output import present, results_only
    from assay.config.params import load_params
    from assay.settings import Settings
    from pipelines.runtime.server import prepare

    settings = Settings()
    params = load_params(settings.params_file)
    prepare(settings)
    with results_only() if as_json else nullcontext():
        from pipelines.runtime import deployments

        present(work(deployments, settings, params), as_json, render)


def _table(result: dict[str, Any]) -> Any:
    from rich.table import Table

    if not result["schedules"]:
        return "params.yaml has no schedules"
    grid = Table("schedule", "flow", "of", box=None)
    grid.add_column("when", no_wrap=True)
    grid.add_column("time zone")
    grid.add_column("next runs", no_wrap=True)
    grid.add_column("state")
    for row in result["schedules"]:
        when = row["cron"] or (f"every {row['interval']}" if row["interval"] else "")
        state = "paused" if row["paused"] else {True: "applied", False: "to be applied", None: ""}[row["applied"]]
        dates = "\n".join(date[:16] for date in row["next"])
        grid.add_row(row["name"], row["flow"], row["target"], when, row["timezone"], dates, state)
    return grid
