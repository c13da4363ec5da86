"""What a person agrees to is what is promoted."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.flows import promote


def test_the_version_is_fixed_before_the_person_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a worker, another process goes on after the answer: it finds what the first one noted."""
    noted: dict[str, Any] = {}
    newest = iter(("3", "4"))

    def look_up(_model: str, version: str | None) -> dict[str, Any]:
        return {"version": version or next(newest), "metrics": {"test/accuracy": 0.9}, "rolled_back": None}

    monkeypatch.setattr(promote, "look_up", look_up)
    monkeypatch.setattr(promote, "read_flow_run_input", noted.get)
    monkeypatch.setattr(promote, "create_flow_run_input", noted.__setitem__)
    assert promote.chosen("digits", None)["version"] == "3"
    assert promote.chosen("digits", None)["version"] == "3"


def test_the_question_has_the_figures_of_that_version() -> None:
    asked = {"version": "3", "metrics": {"test/accuracy": 0.9, "val/loss": 0.25}, "rolled_back": None}
    assert promote.question("digits", asked) == (
        "Make version 3 of digits champion?\n\n- test/accuracy: 0.9000\n- val/loss: 0.2500"
    )
    back = promote.question("digits", {**asked, "metrics": {}, "rolled_back": "2026-11-28T05:00:00Z"})
    assert "It was rolled back at 2026-11-28T05:00:00Z." in back
    assert "It was not evaluated." in back
