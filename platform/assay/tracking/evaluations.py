"""Evaluations, as tags of a run: the metrics of each split, and with which code and libraries they were measured."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.files import parse_json
from assay.inputs import code_sha256, libraries
from assay.tracking.provenance import NO_CHANGES, PREFIX, code_state

if TYPE_CHECKING:
    from assay.tracking.run import Run

METRICS = f"{PREFIX}evaluation."
"""With a split's name: the tag with its metrics. All else that shows them follows from it."""
MEASURED = f"{PREFIX}measured_with."
"""With a split's name: the tag with what they were measured with."""


def measuring_with(root: Path, task: str) -> dict[str, Any]:
    """What an evaluation that begins now measures with.

    Raises:
        InputError: the project is not a git repository, or has no commit.
    """
    state = code_state(root)
    return {
        "commit": state.commit,
        "diff_sha256": state.diff_sha256,
        "code_sha256": code_sha256(task),
        "libraries": dict(libraries()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def evaluation_tags(split: str, metrics: Mapping[str, float], measured: Mapping[str, Any]) -> dict[str, str]:
    """The tags of an evaluation, the one that makes it count last."""
    return {MEASURED + split: json.dumps(measured), METRICS + split: json.dumps(metrics)}


def recorded_metrics(run: Run) -> dict[str, float]:
    """The metrics of the kept weights on the splits that were evaluated, by their full names."""
    metrics: dict[str, float] = {}
    for name in run.data.tags:
        if name.startswith(METRICS):
            metrics |= _parsed(run, name)
    return metrics


def measuring_notes(run: Run) -> list[str]:
    """Where a run was measured with other code or libraries than it was trained with, a line for each split."""
    tags, notes = run.data.tags, []
    for name in sorted(name for name in tags if name.startswith(MEASURED)):
        measured = _parsed(run, name)
        differs = [
            what
            for what, as_trained in (
                ("code", measured.get("code_sha256") == tags.get(f"{PREFIX}code_sha256")),
                ("libraries", measured.get("libraries") == _parsed(run, f"{PREFIX}libraries")),
            )
            if not as_trained
        ]
        if differs:
            state = "" if measured.get("diff_sha256") == NO_CHANGES else " with uncommitted changes"
            notes.append(
                f"measured on the {name.removeprefix(MEASURED)} split with other {' and '.join(differs)} than it was "
                f"trained with: commit {str(measured.get('commit'))[:10]}{state}"
            )
    return notes


def _parsed(run: Run, tag: str) -> dict[str, Any]:
    where = f"run {run.info.run_id}: its tag {tag}"
    return parse_json(run.data.tags.get(tag, "{}"), where, "remove the tag, and evaluate again")
