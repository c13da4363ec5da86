"""Brings Prefect's states in line with this machine: for runs that died, are to be cancelled, or are too late.

Prefect's worker watches the processes that it started itself. This is for those of a worker that died, and those that
were started by hand.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelled, Completed, Crashed

from assay.log import Log
from assay.services.prefect import POOL
from pipelines.runtime.flow import notify
from pipelines.runtime.flow_processes import FlowProcess, registered_processes
from pipelines.runtime.late_runs import skipped, waiting_runs
from pipelines.runtime.paging import every

if TYPE_CHECKING:
    from assay.settings import Settings

TAG = "assay"
LOST_SECONDS = 60.0
"""A run that a worker took, and that no process has begun for so long, is lost."""
LOST = "the worker that took it from the queue died before it began; run it again"
DIED = "the process that ran it died; run it again to continue where it stopped"
STOPPED = (StateType.RUNNING, StateType.PENDING, StateType.PAUSED)


class Reaper:
    """Checks all runs once each time that `cycle` is called."""

    def __init__(self, settings: Settings, client: SyncPrefectClient, log: Log) -> None:
        self.settings = settings
        self.client = client
        self.log = log
        self._cancelled: set[str] = set()
        self._seen: set[tuple[str, str]] = set()
        self._pending: dict[str, float] = {}  # when each waiting run was first seen

    def cycle(self) -> None:
        self.check_processes()
        self.crash_lost_runs()
        self.skip_late_runs()

    def check_processes(self, at_once: bool = False) -> None:
        """Cancel or bury the runs of this machine's processes, if need be.

        Args:
            at_once: do not leave a worker the time to report first how a process ended.
        """
        found = [process for process in registered_processes(self.settings.root) if process.life != "elsewhere"]
        if not found:
            return
        chosen = FlowRunFilter.model_validate({"id": {"any_": [process.flow_run for process in found]}})
        runs = {str(run.id): run for run in every(self.client.read_flow_runs, flow_run_filter=chosen)}
        for process in found:
            run = runs.get(process.flow_run)
            if process.alive:
                if run is not None and run.state is not None and run.state.is_cancelling():
                    self._cancel(process)
            elif run is None:
                process.forget()
            elif at_once or self._again("dead", process):
                self._bury(process, run)

    def _again(self, what: str, process: FlowProcess) -> bool:
        """Whether an earlier cycle saw this: then the worker had its time to deal with it."""
        if (what, process.flow_run) in self._seen:
            return True
        self._seen.add((what, process.flow_run))
        return False

    def _cancel(self, process: FlowProcess) -> None:
        """Stop a process that no worker stops: its worker died or cannot reach the server, or a person started it."""
        with suppress(psutil.Error, ProcessLookupError):
            ours = psutil.Process(process.pid).ppid() == os.getpid()
            if process.flow_run not in self._cancelled and (not ours or self._again("cancelling", process)):
                self._cancelled.add(process.flow_run)
                os.kill(process.pid, signal.SIGTERM)

    def _bury(self, process: FlowProcess, run: FlowRun) -> None:
        """Set the final state of a run whose process is gone."""
        assert run.state is not None
        kind, crashed = run.state.type, False
        if kind == StateType.CANCELLING or (kind == StateType.CRASHED and process.flow_run in self._cancelled):
            self._set(run, Cancelled(message="cancelled: it was stopped, and has saved"), force=True)
        elif kind == StateType.CRASHED:
            crashed = True
        elif kind in STOPPED and run.state.name != "Suspended":
            crashed = self._set(run, Crashed(message=DIED), force=True)
        if crashed:
            self.log(f"{run.name} crashed")
            self._notify(run, (run.state.message or DIED) if kind == StateType.CRASHED else DIED)
        self._seen -= {("dead", process.flow_run), ("cancelling", process.flow_run)}
        self._cancelled.discard(process.flow_run)
        process.forget()

    def crash_lost_runs(self) -> None:
        """Runs that a worker had taken from the queue when it died, before a process began them."""
        pending = every(
            self.client.read_flow_runs,
            work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [POOL]}}),
            flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": ["PENDING"]}}}),
        )
        taken = {process.flow_run for process in registered_processes(self.settings.root)}
        now = time.monotonic()  # clocks of machines differ and are set; this one only counts what the reaper saw itself
        self._pending = {str(run.id): self._pending.get(str(run.id), now) for run in pending}
        for run in pending:
            old = now - self._pending[str(run.id)] > LOST_SECONDS
            if old and str(run.id) not in taken and self._set(run, Crashed(message=LOST)):
                self._notify(run, LOST)

    def skip_late_runs(self) -> None:
        """Of the runs of a schedule that wait and are due, only the newest is run."""
        ours = DeploymentFilter.model_validate({"tags": {"all_": [TAG]}})
        deployments = [deployment.id for deployment in every(self.client.read_deployments, deployment_filter=ours)]
        newest: dict[Any, FlowRun] = {}
        for run in waiting_runs(self.client, deployments) if deployments else []:
            later = newest.setdefault(run.deployment_id, run)
            if later.id != run.id and self._set(run, Completed(message=skipped(later))):
                self.log(f"{run.name} {skipped(later)}")

    def _notify(self, run: FlowRun, message: str) -> None:
        notify(self.settings, "crashed", self.client.read_flow(run.flow_id).name, run, message)

    def _set(self, run: FlowRun, state: Any, force: bool = False) -> bool:
        """Whether the server took the state."""
        return self.client.set_flow_run_state(run.id, state, force=force).status.value == "ACCEPT"
