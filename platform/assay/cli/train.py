"""`assay train` and `assay evaluate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from assay.cli.output import AsJson, log, present, table


def train(
    experiment: Annotated[str, typer.Argument(help="A name under `experiments:` in params.yaml.")],
    workers: Annotated[int | None, typer.Option(help="Number of data-parallel workers; 0 trains without Ray.")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", help="Override a setting: optimizer.lr=0.01.")] = None,
    preset: Annotated[str | None, typer.Option(help="A name under `presets:` in params.yaml.")] = None,
    resume: Annotated[str | None, typer.Option(help="Resume this run with its original settings.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Start a new run, even if nothing has changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train an experiment. Shows the finished run if nothing has changed, and continues an unfinished one.

    Example: assay train digits --set optimizer.lr=0.01
    """
    from assay.settings import Settings
    from assay.usecases.helpers.training_progress import TrainingProgress
    from assay.usecases.train import TrainRequest, train

    request, settings = TrainRequest(experiment, assignments(assign, workers), resume, new, preset), Settings()
    if settings.cluster:
        from assay.submit.delegate import train_there

        record = train_there(request, settings, log)
    else:
        record = train(request, settings, TrainingProgress(log))
    present(record, as_json, run_table)


def evaluate(
    run: Annotated[str, typer.Argument(help="A run id, or the name of a trained experiment.")],
    split: Annotated[str, typer.Option(help="The split: train, val or test.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Evaluate a finished run, and record the metrics and pictures with it.

    Example: assay evaluate digits
    """
    from assay.settings import Settings
    from assay.usecases.evaluate import evaluate

    present(evaluate(run, split, Settings(), log), as_json, evaluation_table)


def assignments(assign: list[str] | None, workers: int | None) -> tuple[str, ...]:
    """The overrides of a training, including `--workers`."""
    return (*(assign or ()), *([f"train.workers={workers}"] if workers is not None else ()))


def evaluation_table(result: Any) -> Any:
    """What `assay evaluate` shows."""
    return table({"run": result["run_id"], **result["metrics"]})


def run_table(record: Any) -> Any:
    """What `assay train` shows."""
    rows = {"run": record["run_id"], "status": record["status"], **record["metrics"]}
    rows |= {"steps": f"{record['steps']} ({record['trained_steps']} in this session)", "seconds": record["seconds"]}
    dataset = record["dataset"]
    return table({**rows, "weights": record["weights_sha256"], "dataset": f"{dataset['name']} {dataset['hash']}"})
