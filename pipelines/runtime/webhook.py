"""Tells an address of the user's that a flow failed, crashed or promoted a model. Its own failure harms nobody."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from assay.settings import Settings

Event = Literal["failed", "crashed", "promoted"]
SECONDS = 10.0
TRIES = 3
PAUSE_SECONDS = 1.0


def tell(
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
    """POST the event as JSON; returns what went wrong, without the address: it may hold a token."""
    if settings.webhook is None:
        return None
    body = {"event": event, "flow": flow, "flow_run": flow_run, "name": name, "experiment": experiment}
    body |= {"message": message, "run_id": run_id, "url": url}
    problem = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_SECONDS * 2**attempt)
        problem = _post(settings.webhook.get_secret_value(), json.dumps(body).encode())
        if not problem:
            return None
    return f"the webhook was not told that {name} {event}: {problem}"


def _post(address: str, body: bytes) -> str:
    """What went wrong, empty if nothing did."""
    try:
        if not address.startswith(("http://", "https://")):
            return "ASSAY_WEBHOOK is no http address"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310
            return ""
    except urllib.error.HTTPError as error:
        return f"it answers {error.code}"
    except Exception as error:  # an address that is none, a name that is not known, silence: the text may hold it
        return f"it does not answer ({type(error).__name__})"
