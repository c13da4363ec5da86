"""Gives a registered model the alias `champion`, if its gate and, on request, a person agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from prefect import runtime, task
from prefect.client.schemas.objects import State
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.input.actions import create_flow_run_input, read_flow_run_input
from prefect.states import Completed

from assay.errors import AssayError, Unavailable
from assay.services.running import enter
from assay.settings import Settings
from assay.usecases.promote import candidate
from pipelines.runtime.artifacts import verdict
from pipelines.runtime.errors import StageFailed
from pipelines.runtime.flow import assay_flow, holding
from pipelines.runtime.promotion import notify_of_champion
from pipelines.runtime.stages import ASSAY, RETRIED, run

APPROVAL_SECONDS = 24 * 3600
POLL_SECONDS = 5
CHOSEN = "chosen"
"""What the flow run notes of the version that it asks about."""


class Approval(RunInput):
    """What a person answers in Prefect's pages."""

    approve: bool
    by: str = ""
    reason: str = ""


@assay_flow("promote")
def promote(model: str, version: str | None = None, approval: bool = False) -> State[dict[str, Any] | None]:
    """Hold a version (the newest unless named) against its gate; if it passes, it is champion.

    Args:
        approval: first wait for a person, at most a day. Meanwhile neither workspace nor worker is held. The version is
            fixed before: what is registered while the person thinks is not promoted.

    Returns:
        What `assay promote` prints; None if the person refused.
    """
    if approval:
        asked = chosen(model, version)
        version = asked["version"]
        answer = ask(model, asked)
        if not answer.approve:
            who, why = answer.by or "the person asked", f": {answer.reason}" if answer.reason else ""
            return Completed(message=f"refused by {who}{why}; {model} keeps its champion")
    with holding() as root:
        result = hold_against_gate(str(root), model, version)
        notify_of_champion(result, None)
    return Completed(message=verdict(result), data=result)


def chosen(model: str, version: str | None) -> dict[str, Any]:
    """The version that a person is asked about, with its figures. Whoever goes on after the answer finds the same."""
    fixed = cast("dict[str, Any] | None", read_flow_run_input(CHOSEN))
    if fixed is None:
        fixed = look_up(model, version)
        create_flow_run_input(CHOSEN, fixed)
    return fixed


@task(task_run_name="look up {model}", **RETRIED)
def look_up(model: str, version: str | None) -> dict[str, Any]:
    """The named version, or the newest one now."""
    settings = Settings()
    enter(settings)
    try:
        return candidate(model, version, Settings(project=settings.root))
    except AssayError as error:
        raise StageFailed(str(error), isinstance(error, Unavailable), error.exit_code) from None


def ask(model: str, asked: Mapping[str, Any]) -> Approval:
    """Wait for a person. On a worker the process ends, and another one takes up the answer; by hand, it waits here."""
    form = Approval.with_initial_data(description=question(model, asked))
    if runtime.deployment.id:
        return suspend_flow_run(wait_for_input=form, timeout=APPROVAL_SECONDS, key="approval")
    return pause_flow_run(wait_for_input=form, timeout=APPROVAL_SECONDS, poll_interval=POLL_SECONDS)


def question(model: str, asked: Mapping[str, Any]) -> str:
    """What a person is asked, in Markdown."""
    back = f" It was rolled back at {asked['rolled_back']}." if asked["rolled_back"] else ""
    figures = "\n".join(f"- {name}: {value:.4f}" for name, value in asked["metrics"].items()) or "It was not evaluated."
    return f"Make version {asked['version']} of {model} champion?{back}\n\n{figures}"


@task(task_run_name="promote {model}", **RETRIED)
def hold_against_gate(root: str, model: str, version: str | None) -> dict[str, Any]:
    """The gate's decision."""
    named = ["--version", version] if version else []
    done = run([*ASSAY, "promote", model, *named, "--json"], root, keep_output=True)
    if not done.output:
        done.require_success(f"promote {model}")
        raise StageFailed(f"promote {model} printed nothing")
    result: dict[str, Any] = json.loads(done.output)
    return result
