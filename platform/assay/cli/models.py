"""`assay register`, `promote`, `rollback` and `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.output import AsJson, log, present, progress_bar, table


def register(
    run: Annotated[str, typer.Argument(help="A run id, or the name of a trained experiment.")],
    as_json: AsJson = False,
) -> None:
    """Register a run's model, check it against the gate, and make it champion if it passes.

    If the gate rejects the model, it is still registered, without the alias, and the exit code is 0.

    Example: assay register digits
    """
    from assay.settings import Settings
    from assay.usecases.promote import register

    present(register(run, Settings(), log), as_json, decision_table)


def promote(
    model: Annotated[str, typer.Argument(help="A registered model.")],
    version: Annotated[str | None, typer.Option(help="The version. Default: the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a version champion if it passes the gate. Exits with code 1 if it does not.

    A version that was rolled back must be named.

    Example: assay promote digits --version 3
    """
    from assay.settings import Settings
    from assay.usecases.promote import promote

    result = promote(model, version, Settings(), log)
    present(result, as_json, decision_table)
    if result["decision"] == "rejected":
        raise typer.Exit(1)


def rollback(model: Annotated[str, typer.Argument(help="A registered model.")], as_json: AsJson = False) -> None:
    """Make the previous champion champion again.

    Example: assay rollback digits
    """
    from assay.settings import Settings
    from assay.usecases.promote import rollback

    present(rollback(model, Settings(), log), as_json, decision_table)


def predict(
    model: Annotated[str, typer.Argument(help="models:/digits@champion, models:/digits/3 or digits.")],
    paths: Annotated[list[Path] | None, typer.Argument(help="Files, or folders of files.")] = None,
    count: Annotated[int, typer.Option(min=0, help="Number of samples to generate, for a generative model.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed for the generated samples.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the pictures that the model produces.")] = Path("predictions"),
    as_json: AsJson = False,
) -> None:
    """Run a registered model on files. Lists files that cannot be read and then exits with code 2.

    Example: assay predict models:/digits@champion photo.png folder/
    """
    from assay.settings import Settings
    from assay.usecases.predict import PredictRequest, predict

    with progress_bar("predicting") as progress:
        result = predict(PredictRequest(model, paths or [], count, seed, out), Settings(), progress)
    present(result, as_json, _predictions_table)
    for bad in result["rejected"]:
        log(f"error: {bad['file']}: {bad['reason']}")
    if result["rejected"]:
        raise typer.Exit(2)


def decision_table(result: Any) -> Any:
    """What `assay register`, `promote` and `rollback` show."""
    rows = {"model": result["model"], "version": result["version"], "decision": result["decision"]}
    return table({**rows, "alias": result["alias"] or "-", "because": "\n".join(result["reasons"])})


def _predictions_table(result: Any) -> Any:
    """One row per file. Plain values get their own column, lists are counted, pictures are named."""
    from rich.table import Table

    rows = [{name: _cell(name, value) for name, value in row.items()} for row in result["predictions"]]
    names = dict.fromkeys(name for row in rows for name, cell in row.items() if cell is not None)
    grid = Table(*names, box=None)
    for row in rows:
        grid.add_row(*(row.get(name) or "" for name in names))
    return grid


def _cell(name: str, value: Any) -> str | None:
    if name == "pictures":
        return "\n".join(value)
    if isinstance(value, dict):  # the details of another column
        return None
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(len(value)) if isinstance(value, list) else str(value)
