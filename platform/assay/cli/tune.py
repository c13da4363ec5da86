"""`assay tune` and `assay search`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from assay.cli.output import AsJson, log, present, table

Search = Annotated[str, typer.Argument(help="A name under `searches:` in params.yaml.")]
Resume = Annotated[str | None, typer.Option(help="Go on with this search; refused if it was another then.")]
New = Annotated[bool, typer.Option("--new", help="Start another search, even of the same block.")]
Minutes = Annotated[float | None, typer.Option(help="Stop after so long; the same command goes on later.")]
Parallel = Annotated[int | None, typer.Option(help="Trials at a time; none: as many as there are slots.")]
Apply = Annotated[bool, typer.Option("--apply", help="Add the best as an experiment to params.yaml.")]
Trial = Annotated[int | None, typer.Option(help="With --apply: this trial of the front, not the best.")]


def tune(
    search: Search,
    resume: Resume = None,
    new: New = False,
    minutes: Minutes = None,
    parallel: Parallel = None,
    apply: Apply = False,
    trial: Trial = None,
    as_json: AsJson = False,
) -> None:
    """Search the settings of an experiment. An unfinished search goes on; no trial is repeated.

    Example: assay tune digits-hpo --minutes 30
    """
    _run("tune", (search, resume, new, minutes, parallel), apply, trial, as_json)


def search(
    search: Search,
    resume: Resume = None,
    new: New = False,
    minutes: Minutes = None,
    parallel: Parallel = None,
    apply: Apply = False,
    trial: Trial = None,
    candidates: Annotated[int, typer.Option(help="Show so many networks and what they cost; train none.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Search the networks of an experiment: accuracy against cost, a front to choose from, and --apply to take one.

    Example: assay search digits-networks --candidates 10
    """
    if candidates:
        from assay.settings import Settings
        from assay.usecases.candidates import candidates as show

        present(show(search, candidates, Settings(), log), as_json, _candidates)
        return
    _run("search", (search, resume, new, minutes, parallel), apply, trial, as_json)


def _run(verb: str, options: tuple[Any, ...], apply: bool, trial: int | None, as_json: bool) -> None:
    from assay.errors import InputError
    from assay.settings import Settings
    from assay.usecases.helpers.search_progress import SearchProgress
    from assay.usecases.tune import TuneRequest, tune

    if trial is not None and not apply:
        raise InputError("--trial says which trial --apply takes: give --apply too")
    settings, request = Settings(), TuneRequest(*options)
    if settings.cluster:
        from assay.submit.delegate import tune_there

        record = tune_there(verb, request, settings, log)
    else:
        record = tune(request, settings, SearchProgress(log))
    if apply:
        from assay.usecases.apply import apply as apply_trial

        record = {**record, "applied": apply_trial(record, trial, settings)}
    present(record, as_json, search_report)


def search_report(record: Mapping[str, Any]) -> Any:
    """What `assay tune` and `assay search` show."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

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
        rows["look next"] = f"results/searches/{record['search']}/search.html"
    parts: list[Any] = [table(rows)]
    if len(record["front"]) > 1:
        costs = [name for name in best["metrics"] if name.startswith("cost/")]
        metrics = list(dict.fromkeys([*record["objectives"], *costs]))
        grid = Table(
            "trial",
            *(name.removeprefix("cost/") for name in metrics),
            title="the front",
            title_justify="left",
            box=None,
        )
        for found in record["front"]:
            grid.add_row(str(found["trial"]), *(Text(f"{found['metrics'][name]:g}") for name in metrics))
        parts.append(grid)
    return Group(*parts)


def _candidates(result: Mapping[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

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
        values.append(Text(f"{number}: {config}"))
    return Group(grid, "", *values)
