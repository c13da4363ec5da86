"""`assay schedule`: what runs when. The work is done by `python -m pipelines schedule`, which alone knows Prefect."""

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
    """All schedules: what each runs, when next, and whether the Prefect server has it like this."""
    _pipelines(["list"], as_json)


@app.command(epilog="Example: assay schedule apply")
def apply(as_json: AsJson = False) -> None:
    """Bring the server's deployments in line with params.yaml; a pause that somebody set stays."""
    _pipelines(["apply"], as_json)


@app.command(epilog="Example: assay schedule pause nightly")
def pause(name: Name, as_json: AsJson = False) -> None:
    """Start no more runs of a schedule until it is resumed."""
    _pipelines(["pause", name], as_json)


@app.command(epilog="Example: assay schedule resume nightly")
def resume(name: Name, as_json: AsJson = False) -> None:
    """Let a paused schedule go on."""
    _pipelines(["resume", name], as_json)


@app.command(epilog="Example: assay schedule run nightly")
def run(name: Name, as_json: AsJson = False) -> None:
    """Run a schedule's flow now: by the server's worker, or here where there is no server."""
    _pipelines(["run", name], as_json)


def _pipelines(words: list[str], as_json: bool) -> None:
    """Hand the verb on; its output and its exit code are ours."""
    import os
    import subprocess
    import sys

    from assay.config.params import load_params
    from assay.settings import Settings

    settings = Settings()
    params = load_params(settings.params_file)
    if words[1:]:
        params.schedule(words[1])
    command = [sys.executable, "-m", "pipelines", "schedule", *words, *(["--json"] if as_json else [])]
    environment = {**os.environ, "ASSAY_PROJECT": str(settings.root)}
    done = subprocess.run(command, cwd=settings.root, env=environment)
    if done.returncode:
        raise typer.Exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
