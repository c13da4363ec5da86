"""Gives a registered model the alias `champion`, if its gate and, where asked, a person agree."""

from __future__ import annotations

import json
from typing import Any

from prefect import runtime, task
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed

from assay.settings import Settings
from assay.usecases.helpers.results import ExperimentResults
from pipelines.runtime.common import assay_flow, holding
from pipelines.runtime.errors import StageFailed
from pipelines.runtime.promotion import tell_of_champion
from pipelines.runtime.stages import ASSAY, RETRIED, run
from pipelines.runtime.story import verdict

APPROVAL_SECONDS = 24 * 3600
POLL_SECONDS = 5


class Approval(RunInput):
    """What a person answers in Prefect's pages."""

    approve: bool
    by: str = ""
    reason: str = ""


@assay_flow("promote")
def promote(model: str, version: str | None = None, approval: bool = False) -> Any:
    """Hold a version (the newest unless named) against its gate; if it passes, it is champion.

    Args:
        approval: first wait for a person, a day at most. Nothing is held meanwhile: neither workspace nor worker.

    Returns:
        What `assay promote` says; None where the person refused.
    """
    if approval:
        answer = ask(model, version)
        if not answer.approve:
            who, why = answer.by or "the person asked", f": {answer.reason}" if answer.reason else ""
            return Completed(message=f"refused by {who}{why}; {model} keeps its champion")
    with holding() as root:
        result = hold_against_gate(str(root), model, version)
        tell_of_champion(result, None)
    return Completed(message=verdict(result), data=result)


def ask(model: str, version: str | None) -> Approval:
    """Wait for a person. On a worker the process ends and comes back with the answer; by hand, it waits here."""
    what = f"version {version}" if version else "the newest version"
    form = Approval.with_initial_data(description=f"Make {what} of {model} champion?{_measured(model)}")
    if runtime.deployment.id:
        return suspend_flow_run(wait_for_input=form, timeout=APPROVAL_SECONDS, key="approval")
    return pause_flow_run(wait_for_input=form, timeout=APPROVAL_SECONDS, poll_interval=POLL_SECONDS)


def _measured(model: str) -> str:
    """What is known of the newest version, as Markdown for the form."""
    file = ExperimentResults.of(Settings().root, model).metrics
    if not file.exists():
        return ""
    metrics = json.loads(file.read_text())
    return "\n\nLast evaluated:\n\n" + "\n".join(f"- {name}: {value:.4f}" for name, value in metrics.items())


@task(task_run_name="promote {model}", **RETRIED)
def hold_against_gate(root: str, model: str, version: str | None) -> dict[str, Any]:
    """The gate's decision."""
    chosen = ["--version", version] if version else []
    ended = run([*ASSAY, "promote", model, *chosen, "--json"], root, keep_output=True)
    if not ended.output:
        ended.require_success(f"promote {model}")
        raise StageFailed(f"promote {model} said nothing")
    result: dict[str, Any] = json.loads(ended.output)
    return result
