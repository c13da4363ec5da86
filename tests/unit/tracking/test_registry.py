"""Versions carry what the gate said of them, whole."""

from __future__ import annotations

import json

from assay.settings import Settings
from assay.tracking.provenance import PREFIX
from assay.tracking.registry import Registry
from assay.tracking.runs import claim
from assay.tracking.tracker import Tracker
from tests.unit.tracking.test_runs import provenance


def test_a_long_report_of_the_gate_stays_readable(settings: Settings, tracker: Tracker) -> None:
    report = {"checks": [{"name": f"test/m{i}", "passed": True, "detail": "x" * 60} for i in range(200)]}
    registry = Registry(tracker)
    with claim(settings, tracker, "long", provenance(), None, False) as held:
        registry._client.create_registered_model("long")
        version = registry._client.create_model_version("long", tracker.get(held.run_id).info.artifact_uri, held.run_id)
        crown = lambda version, report: registry.crown(version, report, None, lambda: None)  # noqa: E731
        for keep in (registry.reject, crown):
            keep(version, report)
            assert json.loads(registry.get("long", None).tags[PREFIX + "gate"]) == report
    champion = registry.champion("long")
    assert champion is not None
    assert champion.version == version.version
