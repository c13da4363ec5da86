"""`assay schedule`: what runs when. `python -m pipelines schedule` does the work; only it knows Prefect."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli.output import AsJson

app = typer.Typer(
    help="Schedules of params.yaml: list, apply, pause, resume, run.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name under `schedules:` in params.yaml.")]


@app.command("list", epilog="Example: assay schedule list")
def list_(as_json: AsJson = False) -> None:
    """List all schedules: what each runs, when it runs next, and whether the Prefect server is up to date."""
    _pipelines(["list"], as_json)


@app.command(epilog="Example: assay schedule apply")
def apply(as_json: AsJson = False) -> None:
    """Update the Prefect server to match params.yaml. Paused schedules stay paused."""
    _pipelines(["apply"], as_json)


@app.command(epilog="Example: assay schedule pause nightly")
def pause(name: Name, as_json: AsJson = False) -> None:
    """Pause a schedule: it starts no more runs until it is resumed."""
    _pipelines(["pause", name], as_json)


@app.command(epilog="Example: assay schedule resume nightly")
def resume(name: Name, as_json: AsJson = False) -> None:
    """Resume a paused schedule."""
    _pipelines(["resume", name], as_json)


@app.command(epilog="Example: assay schedule run nightly")
def run(name: Name, as_json: AsJson = False) -> None:
    """Run a schedule's flow now: on the server's worker, or here if there is no server."""
    _pipelines(["run", name], as_json)


def _pipelines(words: list[str], as_json: bool) -> None:
    """Run the verb of `pipelines`, with its output and its exit code."""
    import os
    import subprocess
    import sys

    from assay.config.params import load_params
    from assay.errors import InputError
    from assay.installed import flows_found
    from assay.settings import Settings

    settings = Settings()
    params = load_params(settings.params_file)
    if words[1:]:
        params.schedule(words[1])
    if not flows_found(settings.root):
        raise InputError("the flows are not installed: there is no package `pipelines`; install Assay again with pip")
    command = [sys.executable, "-m", "pipelines", "schedule", *words, *(["--json"] if as_json else [])]
    environment = {**os.environ, "ASSAY_PROJECT": str(settings.root)}
    done = subprocess.run(command, cwd=settings.root, env=environment)
    if done.returncode:
        raise typer.Exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
