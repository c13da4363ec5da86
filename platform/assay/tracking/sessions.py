"""The sessions of a run: with what each process that worked on it did so, and from which step on.

Each has a tag of its own, written when it begins, and the texts that belong to it. At which step it took up the
training is added as soon as somebody looks at the run's folder after its workers began: this process, the next session,
or whoever marks the run KILLED.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.tracking import artifacts
from assay.tracking.provenance import FLAGGED, NO_CHANGES, PREFIX, Provenance
from assay.tracking.tracker import Tracker
from assay.workers.starts import read_starts

TAG = f"{PREFIX}session."
DIFFER = f"{PREFIX}sessions_differ"
"""In words, how the sessions of a run differ; empty if they do not."""


@dataclass(frozen=True)
class Session:
    """One session.

    Attributes:
        step: how many steps, or trials of a search, lay behind when it took them up; None if it did not get so far.
        facts: its `FLAGGED` properties, and when it `started`.
    """

    number: int
    step: int | None
    facts: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        return {"first_step": self.step, **self.facts}


def session_tag(number: int, provenance: Provenance) -> dict[str, str]:
    """The tag of a session that begins now, by its name without the prefix."""
    facts = {name: provenance.tags[name] for name in FLAGGED if name in provenance.tags}
    facts["started"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {f"session.{number}": json.dumps(Session(number, None, facts).plain())}


def next_number(tags: Mapping[str, str]) -> int:
    """The number of the session that begins after those of a run."""
    return max((session.number for session in sessions_of(tags)), default=0) + 1


def log_texts(tracker: Tracker, run_id: str, number: int, provenance: Provenance) -> None:
    """Record the packages and the changes that were not committed of a later session."""
    packages = json.dumps(dict(provenance.packages), indent=2)
    tracker.log_text(run_id, artifacts.of_session(number, artifacts.PACKAGES), packages)
    if provenance.diff:
        tracker.log_text(run_id, artifacts.of_session(number, artifacts.DIFF), provenance.diff)


def note_starts(tracker: Tracker, run_id: str, folder: Path) -> Mapping[str, str]:
    """Add to a run's sessions what its folder knows of their starts; returns the run's tags."""
    tags = dict(tracker.get(run_id).data.tags)
    starts = list(read_starts(folder))
    new = {}
    for session in sessions_of(tags):
        own = [start for start in starts if start.session == session.number]
        if own:
            processors = " and ".join(dict.fromkeys(start.processor for start in own))
            step, facts = min(start.step for start in own), {**session.facts, "processor": processors}
            new[f"{TAG}{session.number}"] = json.dumps(Session(session.number, step, facts).plain())
    new[DIFFER] = "; ".join(session_notes({**tags, **new}))[:5000]
    if any(tags.get(name, "") != value for name, value in new.items()):
        tracker.set_tags(run_id, new)
    return {**tags, **new}


def sessions_of(tags: Mapping[str, str]) -> list[Session]:
    """The sessions that a run records, in their order."""
    found = []
    for name, value in tags.items():
        if name.startswith(TAG):
            facts = json.loads(value)
            found.append(Session(int(name.removeprefix(TAG)), facts.pop("first_step"), facts))
    return sorted(found, key=lambda session: session.number)


def session_notes(tags: Mapping[str, str]) -> list[str]:
    """How the sessions differ that a run's weights come from, a line for each property; empty if they do not."""
    trained = [session for session in sessions_of(tags) if session.step is not None]
    unit = "trial" if tags.get(f"{PREFIX}kind") == "search" else "step"
    return [
        f"its sessions differ in {what}: "
        + ", ".join(_spans((f"{unit} {s.step}", s.facts.get(name, "")) for s in trained))
        for name, what in FLAGGED.items()
        if len({session.facts.get(name, "") for session in trained}) > 1
    ]


def _is_hash(value: str) -> bool:
    return len(value) >= 40 and value.isalnum()


def sessions_record(tags: Mapping[str, str]) -> dict[str, Any]:
    """What the record of a run says of its sessions."""
    return {
        "sessions": [session.plain() for session in sessions_of(tags)],
        "sessions_differ": session_notes(tags),
    }


def _spans(values: Iterable[tuple[str, str]]) -> list[str]:
    """Such as `2 from step 0`, `4 from step 38`; a value that stays is not said again, a hash is shortened."""
    spans: list[str] = []
    before = None
    for begun, value in values:
        if value != before:
            shown = "none" if value == NO_CHANGES else value[:12] if _is_hash(value) else value or "unknown"
            spans.append(f"{shown} from {begun}")
        before = value
    return spans
