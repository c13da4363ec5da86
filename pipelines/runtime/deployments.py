"""Schedules as ordinary Prefect deployments: one for each block of `schedules:`, named `FLOW/NAME`, tagged `assay`."""

from __future__ import annotations

import asyncio
import importlib
import shlex
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from zoneinfo import ZoneInfo

from prefect.client.schemas.filters import DeploymentFilter
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Interval, Schedule
from prefect.types.entrypoint import EntrypointType

from assay.errors import InputError, Unavailable
from assay.services.prefect import POOL
from pipelines.runtime.paging import every
from pipelines.runtime.project import require_stages
from pipelines.runtime.reaper import TAG
from pipelines.runtime.server import connected, named, serving

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import State

    from assay.config.params import Params
    from assay.config.schedule import ScheduleConfig
    from assay.settings import Settings

ANCHOR = datetime(2024, 1, 1, tzinfo=UTC)
"""Intervals are counted from here: every 15 minutes means at :00, :15, :30 and :45, whenever it was applied."""
NEXT = 3


def missing_server() -> str:
    """Why the server's schedules are not known."""
    try:
        with connected():
            return "not all schedules are applied"
    except Unavailable as error:
        return str(error)


def rows(settings: Settings, params: Params) -> list[dict[str, Any]]:
    """What `list` shows. `applied` is None if no server answers; deployments without a block say so in `target`."""
    if not named():
        return [_row(name, config, None, None) for name, config in params.schedules.items()]
    try:
        with connected() as client:
            there = ours(client)
    except Unavailable:
        return [_row(name, config, None, None) for name, config in params.schedules.items()]
    found = []
    for name, config in params.schedules.items():
        deployment = there.pop(f"{config.flow}/{name}", None)
        same = deployment is not None and _applied_options(deployment) == _wanted_options(settings, name, config)
        found.append(_row(name, config, deployment, same))
    for full, deployment in there.items():
        flow, _, name = full.partition("/")
        found.append(
            {"name": name, "flow": flow, "target": "(no longer in params.yaml)", "cron": None, "interval": None,
             "timezone": "", "paused": bool(deployment.paused), "applied": False, "next": []}
        )  # fmt: skip
    return found


def _row(name: str, config: ScheduleConfig, there: DeploymentResponse | None, same: bool | None) -> dict[str, Any]:
    return {
        "name": name,
        "flow": config.flow,
        "target": config.target,
        "cron": config.cron,
        "interval": config.interval,
        "timezone": config.timezone,
        "paused": bool(there.paused) if there is not None else False,
        "applied": same,
        "next": next_runs(config),
    }


def next_runs(config: ScheduleConfig) -> list[str]:
    """The next times as Prefect computes them, in the schedule's time zone."""
    from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule

    if config.every is not None:
        schedule: Any = IntervalSchedule(interval=config.every, anchor_date=ANCHOR)
    else:
        schedule = CronSchedule(cron=config.cron, timezone=config.timezone)
    dates = asyncio.run(schedule.get_dates(NEXT, start=datetime.now(UTC)))
    zone = ZoneInfo(config.timezone)
    return [date.astimezone(zone).isoformat(sep=" ", timespec="minutes") for date in dates]


def apply(settings: Settings, params: Params) -> dict[str, Any]:
    """Create what is missing, update what differs, delete what is ours and has no block; `applied` says which."""
    done: dict[str, str] = {}
    if params.schedules:
        require_stages(settings.root)
    with connected() as client:
        from pipelines.runtime.worker import ensure_pool

        asyncio.run(ensure_pool())
        there = ours(client)
        require_one_checkout(settings.root, there)
        for name, config in params.schedules.items():
            deployment = there.pop(f"{config.flow}/{name}", None)
            if deployment is not None and _applied_options(deployment) == _wanted_options(settings, name, config):
                done[name] = "unchanged"
                continue
            wanted = _deployment(settings, name, config)
            wanted.paused = deployment.paused if deployment is not None else None
            wanted.apply()
            done[name] = "updated" if deployment is not None else "created"
        for full, deployment in there.items():
            client.delete_deployment(deployment.id)
            done[full.partition("/")[2]] = "deleted"
    return {"applied": done}


def require_one_checkout(root: Path, there: Mapping[str, DeploymentResponse]) -> None:
    """A server has the schedules of one checkout: another's would be overwritten, or deleted without a block here."""
    for full, deployment in there.items():
        folder = deployment.job_variables.get("working_dir")
        if folder != str(root):
            raise InputError(
                f"this Prefect server has {full} of another checkout, {folder}: give each its own server, "
                f"or run `prefect deployment delete {full}` if that one is gone"
            )


def switch(params: Params, name: str, paused: bool) -> dict[str, Any]:
    """Pause or resume a schedule."""
    with connected() as client:
        deployment = _applied(client, params, name)
        (client.pause_deployment if paused else client.resume_deployment)(deployment.id)
    return {"name": name, "paused": paused}


def run_now(settings: Settings, params: Params, name: str) -> dict[str, Any]:
    """Start a run: queued for the server's worker; without a named server, run it here to its end."""
    config = params.schedule(name)
    require_stages(settings.root)
    if named():
        with connected() as client:
            run = client.create_flow_run_from_deployment(_applied(client, params, name).id)
        return {"name": name, "flow_run": str(run.id), "message": f"queued as {run.name}"}
    with serving(settings, f"{config.flow}-{config.target}", lambda line: print(line, file=sys.stderr)):  # noqa: T201
        state = cast("State[Any]", load_flow(config.flow)(**config.parameters, return_state=True))
        state.result()
    return {"name": name, "flow_run": str(state.state_details.flow_run_id), "message": state.message}


def load_flow(name: str) -> Flow[..., dict[str, Any] | None]:
    """A flow of this project by its name."""
    module = name.replace("-", "_")
    flow: Flow[..., dict[str, Any] | None] = getattr(importlib.import_module(f"pipelines.flows.{module}"), module)
    return flow


def ours(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """The deployments that `apply` created, by `FLOW/NAME`."""
    tagged = DeploymentFilter.model_validate({"tags": {"all_": [TAG]}})
    found = every(client.read_deployments, deployment_filter=tagged)
    return {f"{client.read_flow(deployment.flow_id).name}/{deployment.name}": deployment for deployment in found}


def _applied(client: SyncPrefectClient, params: Params, name: str) -> DeploymentResponse:
    config = params.schedule(name)
    try:
        return client.read_deployment_by_name(f"{config.flow}/{name}")
    except ObjectNotFound:
        raise InputError(f"schedule {name!r} is not applied yet: run `assay schedule apply`") from None


def _deployment(settings: Settings, name: str, config: ScheduleConfig) -> RunnerDeployment:
    return RunnerDeployment.from_flow(
        load_flow(config.flow),
        name,
        schedule=_schedule(config),
        parameters=config.parameters,
        tags=[TAG],
        work_pool_name=POOL,
        job_variables={
            "command": shlex.join([sys.executable, "-m", "pipelines", "engine"]),
            "working_dir": str(settings.root),
            "stream_output": False,
        },
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def _schedule(config: ScheduleConfig) -> Schedule:
    if config.every is not None:
        return Interval(config.every, anchor_date=ANCHOR)
    assert config.cron is not None
    return Cron(config.cron, timezone=config.timezone)


def _wanted_options(settings: Settings, name: str, config: ScheduleConfig) -> dict[str, Any]:
    """The options that the server should have for a schedule."""
    wanted = _deployment(settings, name, config)
    return {
        "parameters": wanted.parameters,
        "job_variables": wanted.job_variables,
        "entrypoint": wanted.entrypoint,
        "pool": wanted.work_pool_name,
        "schedules": [_plain(item.schedule) for item in wanted.schedules or []],
    }


def _applied_options(deployment: DeploymentResponse) -> dict[str, Any]:
    """The options that the server has."""
    return {
        "parameters": deployment.parameters,
        "job_variables": deployment.job_variables,
        "entrypoint": deployment.entrypoint,
        "pool": deployment.work_pool_name,
        "schedules": [_plain(item.schedule) for item in deployment.schedules],
    }


def _plain(schedule: Any) -> dict[str, Any]:
    """The times of a schedule, without what Prefect fills in."""
    plain: dict[str, Any] = schedule.model_dump(mode="json")
    return {key: plain.get(key) for key in ("cron", "interval", "timezone" if plain.get("cron") else "interval")}
