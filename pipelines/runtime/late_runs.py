"""Late runs of a schedule: after an outage only the newest one runs, because it finds all that happened meanwhile."""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.states import Completed
from prefect.types._datetime import now

from pipelines.runtime.paging import every


def overtaken() -> State[Any] | None:
    """The final state of a scheduled run that is so late that the next of its schedule is due already; else None."""
    context = FlowRunContext.get()
    this = context.flow_run if context is not None else None
    if this is None or not this.auto_scheduled or this.run_count > 1:  # by hand; or it began before, and continues
        return None
    with get_client(sync_client=True) as client:
        later = due_later(client, this)
    return Completed(message=skipped(later)) if later else None


def due_later(client: SyncPrefectClient, this: FlowRun) -> FlowRun | None:
    """The newest run of the same deployment that waits, is due, and was due after this one."""
    waiting, due = waiting_runs(client, [this.deployment_id]), this.expected_start_time
    return next((run for run in waiting if run.id != this.id and _is_later(run, due)), None)


def _is_later(run: FlowRun, due: Any) -> bool:
    """Whether a run was due after that time."""
    return due is not None and run.expected_start_time is not None and run.expected_start_time > due


def waiting_runs(client: SyncPrefectClient, deployments: list[Any]) -> list[FlowRun]:
    """The scheduled runs of deployments that are due and have not begun, the newest first."""
    runs = every(
        client.read_flow_runs,
        deployment_filter=DeploymentFilter.model_validate({"id": {"any_": deployments}}),
        flow_run_filter=FlowRunFilter.model_validate(
            {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": now("UTC")}}
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )
    return [run for run in runs if run.auto_scheduled]


def skipped(later: FlowRun) -> str:
    return f"skipped: a later run of this schedule, of {later.expected_start_time:%Y-%m-%d %H:%M:%SZ}, is due already"
