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

app = typer.Typer(help="Jobs on a Ray cluster: list, read, follow, stop.", no_args_is_help=True, rich_markup_mode=None)

Address = Annotated[str | None, typer.Option(help="The cluster's dashboard, http://HEAD:8265. Default: ASSAY_CLUSTER.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job id, from `assay submit` or `assay jobs list`.")]

RENDER: Mapping[str, Callable[[Any], Any]] = {
    "train": train.run_table,
    "evaluate": train.evaluation_table,
    "tune": tune.search_report,
    "register": models.decision_table,
}
WORDS = {"ignore_unknown_options": True, "allow_interspersed_args": False}  # options after the verb belong to the verb


def submit(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="-- VERB ...", help="The command: train pets --workers 8."),
    ],
    address: Address = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for free slots instead of failing.")] = False,
    follow: Annotated[bool, typer.Option(help="Follow the job's log to its end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Run a verb on a Ray cluster: send the code, follow the job's log, then end with the job's result and exit code.

    Ctrl-C leaves the job running. Example: assay submit -- train pets --workers 8
    """
    from assay.settings import Settings
    from assay.submit.submit import submit

    command, cluster, as_json = (
        parse_command(context.find_root().command, words),
        _cluster(address),
        as_json or "--json" in words,
    )
    job_id = submit(command, Settings(), cluster, log, wait)
    if follow:
        log(f"following its log; to follow it again later: assay jobs attach {job_id}")
        _follow(cluster, job_id, as_json)
    else:
        present(_row(cluster.info(job_id)), as_json, lambda row: row["job_id"])


@app.command("list", epilog="Example: assay jobs list --json")
def list_(address: Address = None, as_json: AsJson = False) -> None:
    """List the jobs on the cluster, newest first."""
    rows = [_row(job) for job in _cluster(address).list()]
    present({"jobs": rows}, as_json, _jobs_table)


@app.command(epilog="Example: assay jobs logs assay-train-pets-1a2b3c4-d5e6f7")
def logs(job: JobId, address: Address = None, as_json: AsJson = False) -> None:
    """Print a job's log so far."""
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
    """Follow a job's log from its beginning to its end, then end with the job's result and exit code."""
    cluster = _cluster(address)
    cluster.info(job)
    _follow(cluster, job, as_json)


@app.command(epilog="Example: assay jobs stop assay-train-pets-1a2b3c4-d5e6f7")
def stop(job: JobId, address: Address = None, as_json: AsJson = False) -> None:
    """Let a job save its state and stop, and wait for it. Run its command again to continue."""
    from assay.submit.follow import stop

    cluster = _cluster(address)
    was = cluster.info(job)
    info = stop(cluster, job, log) if was.open else was
    if not was.open:
        log(f"job {job} has already ended")
    present(_row(info), as_json, table)


def parse_command(group: Any, words: list[str]) -> Command:
    """A command line as `assay` itself would parse it, without running it."""
    from typer.core import TyperGroup

    from assay.errors import InputError, known
    from assay.submit.submit import Command

    assert isinstance(group, TyperGroup)
    words = [word for word in words if word != "--json"]
    if not words or words[0] not in group.commands:
        raise InputError(known("verb", words[0] if words else "", list(group.commands)))
    verb, arguments = tune.ALIASES.get(words[0], words[0]), words[1:]
    with group.commands[verb].make_context(verb, list(arguments)) as context:
        options = dict(context.params)
    if verb == "train":
        options["assignments"] = train.assignments(options.pop("assign"), options.pop("workers"))
    return Command(verb, options, (verb, *arguments))


def _cluster(address: str | None) -> Cluster:
    from assay.errors import InputError
    from assay.settings import Settings
    from assay.submit.ray_jobs import Cluster

    if address is not None:
        return Cluster(address, "--address")
    named = Settings().cluster
    if not named:
        raise InputError("no cluster is named: use --address http://HEAD:8265, or set ASSAY_CLUSTER")
    return Cluster(named)


def _follow(cluster: Cluster, job_id: str, as_json: bool) -> None:
    from assay.submit.follow import Follower, detaching, result_of

    with detaching(cluster, job_id, log):
        ended = Follower(cluster, job_id, log, log).to_the_end()
    result = result_of(ended)
    verb = ended.info.command.split()[0]
    present({**result, "job_id": job_id}, as_json, RENDER[tune.ALIASES.get(verb, verb)])


def _row(job: JobInfo) -> dict[str, Any]:
    started = datetime.fromtimestamp(job.started, UTC).isoformat(timespec="seconds")
    row = {"job_id": job.job_id, "command": job.command, "status": job.status}
    return {**row, "started": started, "seconds": round(job.seconds, 1)}


def _jobs_table(result: Mapping[str, Any]) -> Any:
    from rich.table import Table

    grid = Table(box=None)
    for name in ("job", "command", "status", "started", "seconds"):
        grid.add_column(name, overflow="fold")  # an id that is cut off is useless
    for row in result["jobs"]:
        grid.add_row(*map(str, row.values()))
    return grid
