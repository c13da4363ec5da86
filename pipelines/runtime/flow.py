"""What all flows share: the names of their runs, their failures' notifications, and the checkout that they hold."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from prefect import Flow, flow, get_run_logger, runtime
from prefect.client.schemas.objects import FlowRun, State

from assay.errors import AssayError
from assay.redaction import redact
from assay.settings import Settings
from assay.signals import interruptible
from assay.system_errors import explaining
from pipelines.runtime import webhook
from pipelines.runtime.errors import StageFailed
from pipelines.runtime.flow_processes import register_process
from pipelines.runtime.workspace import workspace

if TYPE_CHECKING:
    from pathlib import Path

P = ParamSpec("P")
Result = TypeVar("Result")

TARGETS = ("experiment", "search", "model")
"""The parameters of flows that name an experiment, a search or a model."""


def assay_flow(name: str) -> Callable[[Callable[P, State[Result]]], Flow[P, Result]]:
    """`@flow`, with what all flows of this project share. A call returns the data of the flow's final state.

    Ctrl-C in the flow's own code crashes it in good order. Outside that code it ends the process.
    """
    options: dict[str, Any] = {"on_running": [_begin], "on_failure": [_notify_of_failure], "persist_result": False}

    def decorate(body: Callable[P, State[Result]]) -> Flow[P, Result]:
        @wraps(body)
        def run(*args: P.args, **kwargs: P.kwargs) -> State[Result]:
            with interruptible((signal.SIGINT,)):
                return body(*args, **kwargs)

        return cast("Flow[P, Result]", flow(name=name, flow_run_name=_run_name, **options)(run))

    return decorate


def _run_name() -> str:
    """Such as `retrain-digits-2026-11-22T03:00Z`: with the time that it was due, not when it started."""
    parameters = runtime.flow_run.parameters
    due = runtime.flow_run.scheduled_start_time
    return f"{runtime.flow_run.flow_name}-{target(parameters)}-{due:%Y-%m-%dT%H:%MZ}"


def target(parameters: dict[str, Any]) -> str | None:
    """The experiment, search or model that a flow runs for."""
    return next((parameters[name] for name in TARGETS if name in parameters), None)


def _begin(_flow: Flow[..., Any], flow_run: FlowRun, _state: State[Any]) -> None:
    register_process(Settings().root, str(flow_run.id))
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)  # the same filter is added once


def _without_traceback(record: logging.LogRecord) -> bool:
    """Failures with a message for the user need no traceback; defects keep theirs."""
    if record.exc_info and isinstance(record.exc_info[1], (StageFailed, AssayError)):
        record.exc_info = None
    return True


def _notify_of_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    notify(Settings(), "failed", flow.name, flow_run, state.message or "failed")


def notify(
    settings: Settings, event: webhook.Event, flow_name: str, flow_run: Any, message: str, run_id: str | None = None
) -> None:
    """Post an event to the webhook; log a warning if that fails."""
    from prefect.logging import get_logger
    from prefect.utilities.urls import url_for

    problem = webhook.post_event(
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
    """Hold the project's checkout; yields its root."""
    root = Settings().root
    with explaining(), workspace(root, runtime.flow_run.name, get_run_logger().info):
        yield root
