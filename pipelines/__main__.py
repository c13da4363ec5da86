"""`python -m pipelines FLOW ...`: a flow in this process, with nothing running before; schedules; the worker."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.signals import quit_at_once
from pipelines.runtime import schedule

if TYPE_CHECKING:
    from assay.config.params import Params
    from assay.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.add_typer(schedule.app, name="schedule")

WORKER = {"PREFECT_WORKER_QUERY_SECONDS": "3", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
"""What Prefect's worker, and the flows that it starts, read from the environment."""

Experiment = Annotated[str, typer.Argument(help="A name under `experiments:` in params.yaml.")]


@app.callback()
def _flows() -> None:
    """The flows of this project. They use the project's services if `assay up` has started them."""
    from assay.services.running import enter
    from assay.settings import Settings

    enter(Settings())


@app.command("train-and-promote")
def train_and_promote(experiments: list[str]) -> None:
    """Data, training, evaluation and registration of experiments, one after the other; what is unchanged is skipped."""
    from pipelines.runtime.show import show_training

    settings, params = _project()
    for name in experiments:
        params.experiment(name)
    with _server_for(settings, f"train-and-promote-{experiments[0]}"):
        from pipelines.flows.train_and_promote import train_and_promote as flow

        for name in experiments:
            started = time.monotonic()
            show_training(name, flow(name), time.monotonic() - started)


@app.command("retrain")
def retrain(experiment: Experiment) -> None:
    """The same, after looking for new data at their source; nothing, if nothing is new."""
    from pipelines.runtime.show import show_training

    settings, params = _project()
    params.experiment(experiment)
    with _server_for(settings, f"retrain-{experiment}"):
        from pipelines.flows.retrain import retrain as flow

        started = time.monotonic()
        state = flow(experiment, return_state=True)
        summary = state.result()
        if summary is None:
            typer.echo(f"{experiment}: {state.message}")
        else:
            show_training(experiment, summary, time.monotonic() - started)


@app.command("nightly-search")
def nightly_search(
    search: Annotated[str, typer.Argument(help="A name under `searches:` in params.yaml.")],
    minutes: float = typer.Option(60.0, min=0.1, help="The most that the search runs now."),
) -> None:
    """A search within a budget of minutes; the next time it continues where it stopped."""
    settings, params = _project()
    params.search(search)
    with _server_for(settings, f"nightly-search-{search}"):
        from pipelines.flows.nightly_search import nightly_search as flow

        record = flow(search, minutes)
    best = record["best"]
    typer.echo(
        f"{search}: {record['trials']} trials ({record['reason']}); best run {best['run_id']}: {best['metrics']}"
    )


@app.command("promote")
def promote(
    model: Annotated[str, typer.Argument(help="A registered model.")],
    version: Annotated[str | None, typer.Option(help="The newest unless named.")] = None,
    approval: Annotated[
        bool, typer.Option("--approval", help="Wait for a person's answer in Prefect's pages.")
    ] = False,
) -> None:
    """Hold a version against its gate; if it passes, it is champion. Exit code 1 if it does not."""
    from assay.errors import Unavailable
    from pipelines.runtime.server import NO_SERVER, named, prepare

    settings, _ = _project(runs_stages=False)
    prepare(settings)
    if approval and not named():
        raise Unavailable(f"--approval: nobody could answer: {NO_SERVER}")
    with _server_for(settings, f"promote-{model}"):
        from pipelines.flows.promote import promote as flow

        state = flow(model, version, approval, return_state=True)
        result = state.result()
    typer.echo(state.message)
    if result is None or result["decision"] != "promoted":
        raise typer.Exit(1)


@app.command("worker")
def worker() -> None:
    """Run what schedules and people start on the Prefect server, one at a time, until SIGTERM."""
    from pipelines.runtime.server import prepare

    settings, _ = _project(runs_stages=False)
    for name, value in WORKER.items():
        os.environ.setdefault(name, value)
    prepare(settings)
    from pipelines.runtime.worker import work

    work(settings, _log)


@app.command("engine", hidden=True)
def engine() -> None:
    """Become one flow run of the worker's; not for people."""
    from assay.settings import Settings
    from pipelines.runtime.engine import run_engine

    run_engine(Settings())


def _project(runs_stages: bool = True) -> tuple[Settings, Params]:
    """The settings and the checked params.yaml, before anything slow is imported."""
    from assay.config.params import load_params
    from assay.settings import Settings
    from pipelines.runtime.project import require_stages

    settings = Settings()
    params = load_params(settings.params_file)
    if runs_stages:
        require_stages(settings.root)
    return settings, params


@contextmanager
def _server_for(settings: Settings, who: str) -> Iterator[None]:
    """A server for flows that run in this process; afterwards no file names them as running."""
    from pipelines.runtime.server import serving

    with serving(settings, who, _log):
        from assay.owner import Owner
        from pipelines.runtime.flow_processes import registered_processes

        try:
            yield
        finally:
            for process in registered_processes(settings.root):
                if process.owner == Owner.here():
                    process.forget()


def _log(line: str, *_: Any, **__: Any) -> None:
    typer.echo(line, err=True)


def _end(number: int, _frame: object) -> None:
    """A closed terminal ends a flow as `kill` does, which Prefect answers. Ctrl-C ends this process where no flow's own
    code runs: beneath Prefect's imports an exception can get lost, and there is nothing to save.
    """
    if number == signal.SIGHUP:
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        quit_at_once()


def main() -> None:
    """One line and an exit code for each error, as the `assay` program does."""
    from assay.errors import AssayError
    from assay.program import outlive_output
    from assay.signals import handled_by
    from assay.system_errors import explaining
    from pipelines.runtime.errors import StageFailed

    outlive_output()
    try:
        with explaining(), handled_by(_end, (signal.SIGHUP, signal.SIGINT)):
            app()
    except (AssayError, StageFailed) as error:
        for line in str(error).splitlines():
            typer.echo(f"error: {line}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
