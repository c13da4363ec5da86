"""The command line. Each verb is a thin function: parse, call, print. Nothing heavy is imported for `--help`."""

from __future__ import annotations

import signal
import sys
from contextlib import nullcontext, suppress

import typer

from assay.cli import data, jobs, models, schedule
from assay.cli import train as training
from assay.cli.doctor import doctor
from assay.cli.failure import failure_reported
from assay.cli.output import results_only
from assay.cli.runs import runs
from assay.cli.services import down, up
from assay.cli.tune import tune
from assay.cli.ui import ui
from assay.program import outlive_output, start_program
from assay.signals import INTERRUPTED, STOPPING, interruptible
from assay.system_errors import explaining

app = typer.Typer(
    name="assay",
    help="Train, prove and promote models: every run tied to its data, its code and its rivals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 120},
    rich_markup_mode=None,  # Rich takes longer to import than the rest of the help takes
)
app.add_typer(data.app, name="data")
app.add_typer(jobs.app, name="jobs")
app.add_typer(schedule.app, name="schedule")
for verb in (
    doctor,
    training.train,
    training.evaluate,
    tune,
    runs,
    models.register,
    models.promote,
    models.rollback,
    models.predict,
    ui,
    up,
    down,
):
    app.command()(verb)
app.command("search", short_help="The same as `tune`.")(tune)
app.command(context_settings=jobs.WORDS)(jobs.submit)


TRACKED = {"train", "evaluate", "tune", "search", "runs"}
"""Verbs that read or write runs, and nothing else of MLflow: they do it by a process of its own."""


OF_SERVICES = {"up", "down", "ui"}
"""Verbs that manage the services themselves."""


@app.callback()
def _options(
    context: typer.Context,
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks of errors."),  # noqa: ARG001 - `main` reads it
) -> None:
    if context.invoked_subcommand not in OF_SERVICES:
        _enter_project()


def _enter_project() -> None:
    """Clear what killed verbs left, and point this one and its children to the services, if they are running."""
    from assay.errors import InputError

    try:
        from assay.services.running import enter
        from assay.settings import Settings

        settings = Settings()
        settings.root  # noqa: B018 - looked for when it is asked for
    except (ModuleNotFoundError, InputError, ValueError):
        return  # the verb itself reports what is wrong
    from assay.usecases.clear import clear_project

    clear_project(settings)
    enter(settings)


def _start_tracking() -> None:
    """Let another process import MLflow while this one imports torch, before either does anything else."""
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if verb not in TRACKED or "--help" in sys.argv or "mlflow" in sys.modules:
        return
    from assay.errors import InputError
    from assay.state import find_project
    from assay.tracking.remote import start

    with suppress(InputError):  # the verb itself says so
        start(find_project(), draws=verb == "train")


def main() -> None:
    """The `assay` program: one line and an exit code for each error; a traceback only with `--debug`."""
    from assay.errors import AssayError, causes

    start_program()
    outlive_output()
    try:
        heard = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
        with failure_reported(), explaining(), interruptible(heard):
            _start_tracking()
            try:
                with results_only() if "--json" in sys.argv else nullcontext():
                    app()
            finally:
                sys.stdout.flush()  # while a failure can still be reported
    except AssayError as error:
        if "--debug" in sys.argv:
            raise
        from assay.redaction import redact

        for line in redact(str(error)).splitlines():
            typer.echo(f"error: {line}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        if "--debug" in sys.argv or str(error.name).startswith("assay"):
            raise
        typer.echo(f"error: {error.name} is not installed: run `assay doctor` to see what is missing", err=True)
        sys.exit(2)
    except Exception as error:
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes(error)):  # that came while a class was made
            sys.exit(INTERRUPTED)
        raise
