"""`assay train` and `assay evaluate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from assay.cli.output import AsJson, log, present, table


def train(
    experiment: Annotated[str, typer.Argument(help="A name under `experiments:` in params.yaml.")],
    workers: Annotated[int | None, typer.Option(help="Data-parallel workers; 0 trains without Ray.")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", help="Override a config key: optimizer.lr=0.01.")] = None,
    preset: Annotated[str | None, typer.Option(help="Settings of this name under `presets:` in params.yaml.")] = None,
    resume: Annotated[str | None, typer.Option(help="Continue this run as it was started.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Start another run, even of unchanged inputs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train an experiment. Unchanged inputs give the finished run; an unfinished run continues.

    Example: assay train digits --set optimizer.lr=0.01
    """
    from assay.settings import Settings
    from assay.usecases.helpers.progress import Progress
    from assay.usecases.train import Request, train

    request, settings = Request(experiment, assignments(assign, workers), resume, new, preset), Settings()
    if settings.cluster:
        from assay.submit.delegate import train_there

        record = train_there(request, settings, log)
    else:
        record = train(request, settings, Progress(log))
    present(record, as_json, run_table)


def evaluate(
    run: Annotated[str, typer.Argument(help="A run id, or an experiment that has been trained.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Measure a finished run on a split that training never saw, and record the metrics and pictures with it.

    Example: assay evaluate digits
    """
    from assay.settings import Settings
    from assay.usecases.evaluate import evaluate

    present(evaluate(run, split, Settings(), log), as_json, evaluation_table)


def assignments(assign: list[str] | None, workers: int | None) -> tuple[str, ...]:
    """The overrides of a training, `--workers` among them."""
    return (*(assign or ()), *([f"train.workers={workers}"] if workers is not None else ()))


def evaluation_table(result: Any) -> Any:
    """What `assay evaluate` shows."""
    return table({"run": result["run_id"], **result["metrics"]})


def run_table(record: Any) -> Any:
    """What `assay train` shows."""
    rows = {"run": record["run_id"], "status": record["status"], **record["metrics"]}
    rows |= {"steps": f"{record['steps']} ({record['trained_steps']} now)", "seconds": record["seconds"]}
    dataset = record["dataset"]
    return table({**rows, "weights": record["weights_sha256"], "dataset": f"{dataset['name']} {dataset['hash']}"})
