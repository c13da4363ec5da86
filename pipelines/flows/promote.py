"""Gives a registered model the alias `champion`, if its gate and, on request, a person agree."""

from __future__ import annotations

import json
from typing import Any

from prefect import runtime, task
from prefect.client.schemas.objects import State
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed

from assay.settings import Settings
from assay.usecases.helpers.results import ExperimentResults
from pipelines.runtime.artifacts import verdict
from pipelines.runtime.errors import StageFailed
from pipelines.runtime.flow import assay_flow, holding
from pipelines.runtime.promotion import notify_of_champion
from pipelines.runtime.stages import ASSAY, RETRIED, run

APPROVAL_SECONDS = 24 * 3600
POLL_SECONDS = 5


class Approval(RunInput):
    """What a person answers in Prefect's pages."""

    approve: bool
    by: str = ""
    reason: str = ""


@assay_flow("promote")
def promote(model: str, version: str | None = None, approval: bool = False) -> State[dict[str, Any] | None]:
    """Hold a version (the newest unless named) against its gate; if it passes, it is champion.

    Args:
        approval: first wait for a person, at most a day. Meanwhile neither workspace nor worker is held.

    Returns:
        What `assay promote` prints; None if the person refused.
    """
    if approval:
        answer = ask(model, version)
        if not answer.approve:
            who, why = answer.by or "the person asked", f": {answer.reason}" if answer.reason else ""
            return Completed(message=f"refused by {who}{why}; {model} keeps its champion")
    with holding() as root:
        result = hold_against_gate(str(root), model, version)
        notify_of_champion(result, None)
    return Completed(message=verdict(result), data=result)


def ask(model: str, version: str | None) -> Approval:
    """Wait for a person. On a worker the process ends, and another one takes up the answer; by hand, it waits here."""
    what = f"version {version}" if version else "the newest version"
    form = Approval.with_initial_data(description=f"Make {what} of {model} champion?{_measured(model)}")
    if runtime.deployment.id:
        return suspend_flow_run(wait_for_input=form, timeout=APPROVAL_SECONDS, key="approval")
    return pause_flow_run(wait_for_input=form, timeout=APPROVAL_SECONDS, poll_interval=POLL_SECONDS)


def _measured(model: str) -> str:
    """The last metrics, as Markdown for the form."""
    file = ExperimentResults.of(Settings().root, model).metrics
    if not file.exists():
        return ""
    metrics = json.loads(file.read_text())
    return "\n\nLast evaluated:\n\n" + "\n".join(f"- {name}: {value:.4f}" for name, value in metrics.items())


@task(task_run_name="promote {model}", **RETRIED)
def hold_against_gate(root: str, model: str, version: str | None) -> dict[str, Any]:
    """The gate's decision."""
    chosen = ["--version", version] if version else []
    done = run([*ASSAY, "promote", model, *chosen, "--json"], root, keep_output=True)
    if not done.output:
        done.require_success(f"promote {model}")
        raise StageFailed(f"promote {model} printed nothing")
    result: dict[str, Any] = json.loads(done.output)
    return result
