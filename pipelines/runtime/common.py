"""What all flows share: how their runs are called, what failures are told, and that late runs are not caught up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect import Flow, flow, get_run_logger, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.states import Completed

from assay.errors import AssayError
from assay.redaction import redact
from assay.settings import Settings
from pipelines.runtime import records, webhook
from pipelines.runtime.errors import StageFailed
from pipelines.runtime.workspace import workspace

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = ("experiment", "search", "model")
"""The parameter of a flow that says what it is about."""


def assay_flow(name: str) -> Callable[[Callable[..., Any]], Flow[..., Any]]:
    """`@flow`, with what all flows of this project share."""
    options: dict[str, Any] = {"on_running": [_begin], "on_failure": [_tell_failure], "persist_result": False}
    return flow(name=name, flow_run_name=_run_name, **options)


def _run_name() -> str:
    """Such as `retrain-digits-2026-11-22T03:00Z`: for which time it was due, not when it came to run."""
    parameters = runtime.flow_run.parameters
    due = runtime.flow_run.scheduled_start_time
    return f"{runtime.flow_run.flow_name}-{target(parameters)}-{due:%Y-%m-%dT%H:%MZ}"


def target(parameters: dict[str, Any]) -> str | None:
    return next((parameters[name] for name in TARGETS if name in parameters), None)


def _begin(_flow: Flow[..., Any], flow_run: FlowRun, _state: State[Any]) -> None:
    records.write(Settings().root, str(flow_run.id))
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)  # the same filter is added once


def _without_traceback(record: logging.LogRecord) -> bool:
    """Failures that are told in plain words need no traceback; defects keep theirs."""
    if record.exc_info and isinstance(record.exc_info[1], (StageFailed, AssayError)):
        record.exc_info = None
    return True


def _tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    tell(Settings(), "failed", flow.name, flow_run, state.message or "failed")


def tell(
    settings: Settings, event: webhook.Event, flow_name: str, flow_run: Any, message: str, run_id: str | None = None
) -> None:
    """Tell the webhook, and the log where it does not answer."""
    from prefect.logging import get_logger
    from prefect.utilities.urls import url_for

    problem = webhook.tell(
        settings,
        event,
        flow=flow_name,
        flow_run=str(flow_run.id),
        name=flow_run.name,
        experiment=target(flow_run.parameters),
        message=redact(message),
        run_id=run_id,
        url=url_for("flow-run", obj_id=flow_run.id),
    )
    if problem:
        get_logger("assay").warning(problem)


@contextmanager
def holding() -> Iterator[Path]:
    """Hold the project's checkout; its root."""
    root = Settings().root
    with workspace(root, runtime.flow_run.name, get_run_logger().info):
        yield root


def overtaken() -> State[Any] | None:
    """The end of a scheduled run that comes so late that the next of its schedule is due already; else None.

    After an outage one run is enough: it finds all that happened meanwhile.
    """
    this = FlowRunContext.get().flow_run
    if not this.auto_scheduled or this.run_count > 1:  # by hand; or it was begun before, and goes on
        return None
    with get_client(sync_client=True) as client:
        later = due_later(client, this)
    return Completed(message=skipped(later)) if later else None


def due_later(client: SyncPrefectClient, this: FlowRun) -> FlowRun | None:
    """The newest run of the same deployment that waits, is due, and was due after this one."""
    waiting = waiting_runs(client, [this.deployment_id])
    due = this.expected_start_time
    return next((run for run in waiting if run.id != this.id and run.expected_start_time > due), None)


def waiting_runs(client: SyncPrefectClient, deployments: list[Any]) -> list[FlowRun]:
    """The scheduled runs of deployments that are due and were not begun, the newest first."""
    from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.types._datetime import now

    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter.model_validate({"id": {"any_": deployments}}),
        flow_run_filter=FlowRunFilter.model_validate(
            {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": now("UTC")}}
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=200,
    )
    return [run for run in runs if run.auto_scheduled]


def skipped(later: FlowRun) -> str:
    return f"skipped: a later run of this schedule, of {later.expected_start_time:%Y-%m-%d %H:%M:%SZ}, is due already"
