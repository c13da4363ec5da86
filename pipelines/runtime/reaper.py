"""Brings what Prefect says in line with what this machine does: runs that died, are to be cancelled, or come too late.

Prefect's worker watches the processes that it started itself. Here are those of a worker that died, and those that were
started by hand.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelled, Completed, Crashed
from prefect.types._datetime import now

from assay.log import Log
from assay.services.prefect import POOL
from pipelines.runtime import records
from pipelines.runtime.common import skipped, tell, waiting_runs

if TYPE_CHECKING:
    from assay.settings import Settings

TAG = "assay"
LOST_SECONDS = 60.0
"""After so long a run that was given to a worker, and that no process has taken up, is lost."""
LOST = "the worker that took it from the queue died before it began; run it again"
DIED = "the process that ran it died; running it again goes on where it stopped"
STOPPED = (StateType.RUNNING, StateType.PENDING, StateType.PAUSED)


class Reaper:
    """One look after the other, by `cycle`."""

    def __init__(self, settings: Settings, client: SyncPrefectClient, log: Log) -> None:
        self.settings = settings
        self.client = client
        self.log = log
        self._cancelled: set[str] = set()
        self._seen: set[tuple[str, str]] = set()

    def cycle(self) -> None:
        self.look_at_processes()
        self.look_for_lost_runs()
        self.skip_late_runs()

    def look_at_processes(self, at_once: bool = False) -> None:
        """Every run that a process of this machine had taken up.

        Args:
            at_once: do not leave it to a worker to report first how a process ended.
        """
        found = list(records.read_all(self.settings.root))
        if not found:
            return
        chosen = FlowRunFilter.model_validate({"id": {"any_": [record.flow_run for record in found]}})
        runs = {str(run.id): run for run in self.client.read_flow_runs(flow_run_filter=chosen)}
        for record in found:
            run = runs.get(record.flow_run)
            if record.alive:
                if run is not None and run.state is not None and run.state.is_cancelling():
                    self._cancel(record)
            elif run is None:
                record.remove()
            elif at_once or self._again("dead", record):
                self._bury(record, run)

    def _again(self, what: str, record: records.Record) -> bool:
        """Whether this was seen in an earlier look: the worker had its time to deal with it."""
        if (what, record.flow_run) in self._seen:
            return True
        self._seen.add((what, record.flow_run))
        return False

    def _cancel(self, record: records.Record) -> None:
        """Stop a process that no worker stops: its worker died or does not hear the server, or a person started it."""
        with suppress(psutil.Error, ProcessLookupError):
            ours = psutil.Process(record.pid).ppid() == os.getpid()
            if record.flow_run not in self._cancelled and (not ours or self._again("cancelling", record)):
                self._cancelled.add(record.flow_run)
                os.kill(record.pid, signal.SIGTERM)

    def _bury(self, record: records.Record, run: FlowRun) -> None:
        """Say how a run ended whose process is gone."""
        assert run.state is not None
        kind, crashed = run.state.type, False
        if kind == StateType.CANCELLING or (kind == StateType.CRASHED and record.flow_run in self._cancelled):
            self._set(run, Cancelled(message="cancelled: it was stopped, and has saved"), force=True)
        elif kind == StateType.CRASHED:
            crashed = True
        elif kind in STOPPED and run.state.name != "Suspended":
            crashed = self._set(run, Crashed(message=DIED), force=True)
        if crashed:
            self.log(f"{run.name} crashed")
            self._tell(run, (run.state.message or DIED) if kind == StateType.CRASHED else DIED)
        self._seen -= {("dead", record.flow_run), ("cancelling", record.flow_run)}
        self._cancelled.discard(record.flow_run)
        record.remove()

    def look_for_lost_runs(self) -> None:
        """Runs that a worker had taken from the queue when it died, before a process began them."""
        pending = self.client.read_flow_runs(
            work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [POOL]}}),
            flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": ["PENDING"]}}}),
        )
        taken = {record.flow_run for record in records.read_all(self.settings.root)}
        for run in pending:
            old = now("UTC") - run.state.timestamp > timedelta(seconds=LOST_SECONDS)
            if old and str(run.id) not in taken and self._set(run, Crashed(message=LOST)):
                self._tell(run, LOST)

    def skip_late_runs(self) -> None:
        """Of the runs of a schedule that wait and are due, only the newest is run."""
        ours = DeploymentFilter.model_validate({"tags": {"all_": [TAG]}})
        deployments = [deployment.id for deployment in self.client.read_deployments(deployment_filter=ours)]
        newest: dict[Any, FlowRun] = {}
        for run in waiting_runs(self.client, deployments) if deployments else []:
            later = newest.setdefault(run.deployment_id, run)
            if later.id != run.id and self._set(run, Completed(message=skipped(later))):
                self.log(f"{run.name} {skipped(later)}")

    def _tell(self, run: FlowRun, message: str) -> None:
        tell(self.settings, "crashed", self.client.read_flow(run.flow_id).name, run, message)

    def _set(self, run: FlowRun, state: Any, force: bool = False) -> bool:
        """Whether the server took the state."""
        return self.client.set_flow_run_state(run.id, state, force=force).status.value == "ACCEPT"
