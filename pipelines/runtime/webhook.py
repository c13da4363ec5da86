"""Notifies the user's address that a flow failed, crashed or promoted a model. If that fails, nothing else does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from assay.http import NoAnswer, ask

if TYPE_CHECKING:
    from assay.settings import Settings

Event = Literal["failed", "crashed", "promoted"]
SECONDS = 10.0
TRIES = 3
PAUSE_SECONDS = 1.0


def post_event(
    settings: Settings,
    event: Event,
    *,
    flow: str,
    flow_run: str,
    name: str,
    experiment: str | None,
    message: str,
    run_id: str | None = None,
    url: str | None = None,
) -> str | None:
    """POST the event as JSON; returns what went wrong, without the address, which may hold a token."""
    if settings.webhook is None:
        return None
    body = {"event": event, "flow": flow, "flow_run": flow_run, "name": name, "experiment": experiment}
    body |= {"message": message, "run_id": run_id, "url": url}
    problem = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_SECONDS * 2**attempt)
        problem = _post(settings.webhook.get_secret_value(), body)
        if not problem:
            return None
    return f"the webhook was not notified that {name} {event}: {problem}"


def _post(address: str, body: dict[str, str | None]) -> str:
    """What went wrong; empty on success."""
    if not address.startswith(("http://", "https://")):
        return "ASSAY_WEBHOOK is not an http address"
    try:
        answer = ask("POST", address, body=body, seconds=SECONDS)
    except NoAnswer as error:
        return f"it does not answer ({error})"
    return "" if answer.status < 300 else f"it answers {answer.status}"
