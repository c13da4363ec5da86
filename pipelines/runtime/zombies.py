"""Prefect's remedy for runs on machines that never come back: without a heartbeat for long, the run is crashed.

The reaper is faster, but it sees only its own machine.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

NAME = "assay: flow runs without a heartbeat are crashed"
SILENT_SECONDS = 180
"""Six heartbeats: a busy machine may miss some."""
ALIVE = "prefect.flow-run.heartbeat"
ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "Scheduled", "AwaitingRetry")


async def ensure_automation() -> None:
    """Create the automation unless it exists."""
    async with get_client() as client:
        if await client.read_automations_by_name(NAME):
            return
        await client.create_automation(
            AutomationCore(
                name=NAME,
                trigger=EventTrigger(
                    after={ALIVE},
                    expect={ALIVE, *(f"prefect.flow-run.{end}" for end in ENDS)},
                    match={"prefect.resource.id": "prefect.flow-run.*"},
                    for_each={"prefect.resource.id"},
                    posture=Posture.Proactive,
                    threshold=1,
                    within=timedelta(seconds=SILENT_SECONDS),
                ),
                actions=[
                    ChangeFlowRunState(
                        state=StateType.CRASHED,
                        message="its machine sends no heartbeat; run it again to continue where it stopped",
                    )
                ],
            )
        )
