"""`assay submit`, and `assay jobs`: work on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import models, train, tune
from assay.cli.output import AsJson, log, present, table

if TYPE_CHECKING:
    from assay.submit.ray_jobs import Cluster, JobInfo
    from assay.submit.submit import Command

app = typer.Typer(help="Jobs on a cluster: list, read, follow, stop.", no_args_is_help=True, rich_markup_mode=None)

Address = Annotated[
    str | None, typer.Option(help="The cluster's dashboard, http://HEAD:8265; by default ASSAY_CLUSTER.")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id that `assay submit` and `assay jobs list` show.")]

RENDER: Mapping[str, Callable[[Any], Any]] = {
    "train": train.run_table,
    "evaluate": train.evaluation_table,
    "tune": tune.search_report,
    "search": tune.search_report,
    "register": models.decision_table,
}
WORDS = {"ignore_unknown_options": True, "allow_interspersed_args": False}  # the options of the verb are not ours


def submit(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="-- VERB ...", help="What to run: train pets --workers 8.")],
    address: Address = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait where the cluster has too few slots.")] = False,
    follow: Annotated[bool, typer.Option(help="Show the job's log until its end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Run a verb on a Ray cluster: packs the code, shows the job's log, ends with its result and its exit code.

    Ctrl-C leaves the job running. Example: assay submit -- train pets --workers 8
    """
    from assay.settings import Settings
    from assay.submit.submit import submit

    command, cluster, as_json = (
        parsed(context.find_root().command, words),
        _cluster(address),
        as_json or "--json" in words,
    )
    job_id = submit(command, Settings(), cluster, log, wait)
    if follow:
        log(f"its log follows; later: assay jobs attach {job_id}")
        _follow(cluster, job_id, as_json)
    else:
        present(_row(cluster.info(job_id)), as_json, lambda row: row["job_id"])


@app.command("list", epilog="Example: assay jobs list --json")
def list_(address: Address = None, as_json: AsJson = False) -> None:
    """The jobs that were submitted to the cluster, newest first."""
    rows = [_row(job) for job in _cluster(address).list()]
    present({"jobs": rows}, as_json, _jobs_table)


@app.command(epilog="Example: assay jobs logs assay-train-pets-1a2b3c4-d5e6f7")
def logs(job: JobId, address: Address = None, as_json: AsJson = False) -> None:
    """What a job has written so far, without waiting for more."""
    from assay.submit.follow import JobLog

    cluster = _cluster(address)
    info, written = cluster.info(job), JobLog()
    lines = list(written.new(cluster.log(job), last=True))
    present(
        {**_row(info), "lines": lines, "ended": written.final_report()},
        as_json,
        lambda result: "\n".join(result["lines"]),
    )


@app.command(epilog="Example: assay jobs attach assay-train-pets-1a2b3c4-d5e6f7")
def attach(job: JobId, address: Address = None, as_json: AsJson = False) -> None:
    """Show a job's log from its beginning and follow it to the end, with the job's result and exit code."""
    cluster = _cluster(address)
    cluster.info(job)
    _follow(cluster, job, as_json)


@app.command(epilog="Example: assay jobs stop assay-train-pets-1a2b3c4-d5e6f7")
def stop(job: JobId, address: Address = None, as_json: AsJson = False) -> None:
    """Let a job save and end, and wait for it. The command that it ran goes on from there when given again."""
    from assay.submit.follow import stop

    cluster = _cluster(address)
    was = cluster.info(job)
    info = stop(cluster, job, log) if was.open else was
    if not was.open:
        log(f"job {job} had ended already")
    present(_row(info), as_json, table)


def parsed(group: Any, words: list[str]) -> Command:
    """A line of the command line, read as `assay` itself would read it, without running it."""
    from typer.core import TyperGroup

    from assay.errors import InputError, known
    from assay.submit.submit import Command

    assert isinstance(group, TyperGroup)
    words = [word for word in words if word != "--json"]
    if not words or words[0] not in group.commands:
        raise InputError(known("verb", words[0] if words else "", list(group.commands)))
    verb = group.commands[words[0]]
    with verb.make_context(words[0], list(words[1:])) as context:
        options = dict(context.params)
    if words[0] == "train":
        options["assignments"] = train.assignments(options.pop("assign"), options.pop("workers"))
    return Command(words[0], options, tuple(words))


def _cluster(address: str | None) -> Cluster:
    from assay.errors import InputError
    from assay.settings import Settings
    from assay.submit.ray_jobs import Cluster

    if address is not None:
        return Cluster(address, "--address")
    named = Settings().cluster
    if not named:
        raise InputError("no cluster: give --address http://HEAD:8265, or set ASSAY_CLUSTER")
    return Cluster(named)


def _follow(cluster: Cluster, job_id: str, as_json: bool) -> None:
    from assay.submit.follow import Follower, detaching, result_of

    with detaching(cluster, job_id, log):
        ended = Follower(cluster, job_id, log, log).to_the_end()
    result = result_of(ended)
    verb = ended.info.command.split()[0]
    present({**result, "job_id": job_id}, as_json, RENDER[verb])


def _row(job: JobInfo) -> dict[str, Any]:
    started = datetime.fromtimestamp(job.started, UTC).isoformat(timespec="seconds")
    row = {"job_id": job.job_id, "command": job.command, "status": job.status}
    return {**row, "started": started, "seconds": round(job.seconds, 1)}


def _jobs_table(result: Mapping[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    grid = Table(box=None)
    for name in ("job", "command", "status", "started", "seconds"):
        grid.add_column(name, overflow="fold")  # an id that is cut off is of no use
    for row in result["jobs"]:
        grid.add_row(*(escape(str(value)) for value in row.values()))
    return grid
