"""`assay train` and `assay evaluate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from assay.cli.output import AsJson, present, say, table


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
    from assay.jobs.progress import Progress
    from assay.jobs.train import Request, train
    from assay.settings import Settings

    assignments = [*(assign or []), *([f"train.workers={workers}"] if workers is not None else [])]
    request = Request(experiment, tuple(assignments), resume, new, preset)
    present(train(request, Settings(), Progress(say)), as_json, _run)


def evaluate(
    run: Annotated[str, typer.Argument(help="A run id, or an experiment that has been trained.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Measure a finished run on a split that training never saw, and record the metrics and pictures with it.

    Example: assay evaluate digits
    """
    from assay.jobs.evaluate import evaluate
    from assay.settings import Settings

    present(evaluate(run, split, Settings(), say), as_json, lambda r: table({"run": r["run_id"], **r["metrics"]}))


def _run(record: Any) -> Any:
    rows = {"run": record["run_id"], "status": record["status"], **record["metrics"]}
    rows |= {"steps": f"{record['steps']} ({record['trained_steps']} now)", "seconds": record["seconds"]}
    dataset = record["dataset"]
    return table({**rows, "weights": record["weights_sha256"], "dataset": f"{dataset['name']} {dataset['hash']}"})
