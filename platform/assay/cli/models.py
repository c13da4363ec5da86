"""`assay register`, `promote`, `rollback` and `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.output import AsJson, present, progress_bar, say, table


def register(
    run: Annotated[str, typer.Argument(help="A run id, or an experiment that has been trained.")],
    as_json: AsJson = False,
) -> None:
    """Register a run's model, hold it against the gate, and make it champion if it passes.

    Exit code 0 also where the gate says no: the model is registered, without the alias.

    Example: assay register digits
    """
    from assay.jobs.promote import register
    from assay.settings import Settings

    present(register(run, Settings()), as_json, _decision)


def promote(
    model: Annotated[str, typer.Argument(help="A registered model.")],
    version: Annotated[str | None, typer.Option(help="The newest unless named.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a version champion if it passes the gate. Exit code 1 where it does not.

    Example: assay promote digits --version 3
    """
    from assay.jobs.promote import promote
    from assay.settings import Settings

    result = promote(model, version, Settings())
    present(result, as_json, _decision)
    if result["decision"] == "rejected":
        raise typer.Exit(1)


def rollback(model: Annotated[str, typer.Argument(help="A registered model.")], as_json: AsJson = False) -> None:
    """Give the alias back to the champion before.

    Example: assay rollback digits
    """
    from assay.jobs.promote import rollback
    from assay.settings import Settings

    present(rollback(model, Settings()), as_json, _decision)


def predict(
    model: Annotated[str, typer.Argument(help="models:/digits@champion, models:/digits/3, or digits.")],
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders of files.")],
    as_json: AsJson = False,
) -> None:
    """Answer for files with a registered model. Files that cannot be read are named, and make the exit code 2.

    Example: assay predict models:/digits@champion photo.png folder/
    """
    from assay.jobs.predict import predict
    from assay.settings import Settings

    with progress_bar("predicting") as progress:
        result = predict(model, paths, Settings(), progress)
    present(result, as_json, _answers)
    for bad in result["rejected"]:
        say(f"error: {bad['file']}: {bad['reason']}")
    if result["rejected"]:
        raise typer.Exit(2)


def _decision(result: Any) -> Any:
    rows = {"model": result["model"], "version": result["version"], "decision": result["decision"]}
    return table({**rows, "alias": result["alias"] or "-", "because": "\n".join(result["reasons"])})


def _answers(result: Any) -> Any:
    from rich.table import Table

    grid = Table("file", "answer", "probability", box=None)
    for row in result["predictions"]:
        grid.add_row(row["file"], str(row.get("class", "")), f"{row.get('probability', float('nan')):.3f}")
    return grid
