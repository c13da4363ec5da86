"""`assay tune`, also called `assay search`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.output import AsJson, log, present, table

if TYPE_CHECKING:
    from assay.settings import Settings
    from assay.usecases.tune import TuneRequest

ALIASES = {"search": "tune"}
"""Second names of verbs."""


def tune(
    search: Annotated[str, typer.Argument(help="A name under `searches:` in params.yaml.")],
    resume: Annotated[
        str | None, typer.Option(help="Resume this search. Fails if its block has changed since.")
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Start a new search, even if the block is unchanged.")] = False,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this many minutes. Run the command again to continue.")
    ] = None,
    parallel: Annotated[int | None, typer.Option(help="Trials to run at once. Default: one per free slot.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Add the best trial to params.yaml as an experiment.")] = False,
    trial: Annotated[
        int | None, typer.Option(help="With --apply: add this trial of the front instead of the best one.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Show this many random networks and their costs. Trains nothing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search an experiment's settings or networks. Continues an unfinished search; never repeats a trial.

    Example: assay tune digits-hpo --minutes 30
    """
    from assay.errors import InputError
    from assay.settings import Settings
    from assay.usecases.tune import TuneRequest

    if trial is not None and not apply:
        raise InputError("--trial needs --apply: it names the trial to add to params.yaml")
    settings = Settings()
    if candidates is not None:
        from assay.usecases.candidates import sample_candidates

        present(sample_candidates(search, candidates, settings, log), as_json, _candidates)
        return
    record = _tune(TuneRequest(search, resume, new, minutes, parallel), settings)
    if apply:
        from assay.usecases.apply import apply_trial

        record = {**record, "applied": apply_trial(record, trial, settings)}
    present(record, as_json, search_report)


def _tune(request: TuneRequest, settings: Settings) -> dict[str, Any]:
    """The search's record, from the cluster if ASSAY_CLUSTER names one."""
    if settings.cluster:
        from assay.submit.delegate import tune_there

        return tune_there(request, settings, log)
    from assay.usecases.helpers.search_progress import SearchProgress
    from assay.usecases.tune import tune

    return tune(request, settings, SearchProgress(log))


def search_report(record: Mapping[str, Any]) -> Any:
    """What `assay tune` shows."""
    from rich.console import Group

    from assay.usecases.helpers.results import SearchResults

    best = record["best"]
    rows = {"search": record["search_id"], "ended": record["reason"]}
    rows |= {"trials": ", ".join(f"{record[kind]} {kind}" for kind in ("finished", "stopped", "failed", "over"))}
    rows |= {"epochs": f"{record['epochs']:g}", "seconds": record["seconds"], "best run": best["run_id"]}
    rows |= {**best["metrics"], **{key: str(value) for key, value in best["config"].items()}}
    if "applied" in record:
        applied = record["applied"]
        what = "added to" if applied["changed"] else "is already in"
        rows["applied"] = f"trial {applied['trial']} {what} {applied['file']}: assay train {applied['experiment']}"
    else:
        rows["look next"] = str(SearchResults.of(Path(), record["search"]).page)
    return Group(table(rows), _front(record)) if len(record["front"]) > 1 else table(rows)


def _front(record: Mapping[str, Any]) -> Any:
    """The objectives and costs of each trial on the front."""
    from rich.table import Table

    costs = [name for name in record["best"]["metrics"] if name.startswith("cost/")]
    metrics = list(dict.fromkeys([*record["objectives"], *costs]))
    titles = ("trial", *(name.removeprefix("cost/") for name in metrics))
    grid = Table(*titles, title="the front", title_justify="left", box=None)
    for trial in record["front"]:
        grid.add_row(str(trial["trial"]), *(f"{trial['metrics'][name]:g}" for name in metrics))
    return grid


def _candidates(result: Mapping[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    from assay.report.search import short

    candidates = result["candidates"]
    costs = list(candidates[0]["costs"])
    names = short(dict.fromkeys(key for candidate in candidates for key in candidate["config"]))
    grid = Table("", *(name.removeprefix("cost/") for name in costs), "over a limit", box=None)
    values = []
    for number, candidate in enumerate(candidates, 1):
        seen = (f"{candidate['costs'][name]:g}" for name in costs)
        grid.add_row(str(number), *seen, " ".join(candidate["over"]))
        config = " ".join(f"{names[key]}={value}" for key, value in candidate["config"].items())
        values.append(f"{number}: {config}")
    return Group(grid, "", *values)
