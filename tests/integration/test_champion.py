"""The alias stays where it is unless the champion was beaten, by who still has the turn, with figures that hold."""

from __future__ import annotations

from typing import Any

import pytest

from assay.errors import InputError, WorkError
from assay.tracking import artifacts, evaluations
from assay.tracking.registry import Registry
from assay.tracking.tracker import Tracker
from assay.tracking.turns import Turn
from assay.usecases.evaluate import evaluate
from assay.usecases.promote import promote, register, rollback
from tests.conftest import Project
from tests.integration.test_models import nothing
from tests.support.rivals import Runs, artifact, as_another_version, loosen_further


def champion_of(project: Project) -> str | None:
    champion = Registry(Tracker(project.settings)).champion("digits")
    return None if champion is None else str(champion.version)


def test_a_champion_that_is_damaged_is_not_beaten(rivals: Project) -> None:
    project, good = rivals, Runs.of(rivals).good
    loosen_further(project, "0.0}}")
    as_another_version(project, good)
    Tracker(project.settings).log_bytes(good, artifacts.SEEN, b"")
    weights = artifact(project, good, artifacts.WEIGHTS)
    content = bytearray(weights.read_bytes())
    content[-7] ^= 1
    whole = weights.read_bytes()
    for damaged in (bytes(content), None):
        weights.unlink()
        if damaged is not None:
            weights.write_bytes(damaged)
        with pytest.raises(WorkError, match="the champion, version 1 of 'digits', cannot be compared with: .*rollback"):
            promote("digits", "2", project.settings)
        assert champion_of(project) == "1"
    weights.write_bytes(whole)


def test_want_of_memory_is_no_reason_to_promote(rivals: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project, good = rivals, Runs.of(rivals).good
    loosen_further(project, "0.0}}")
    as_another_version(project, good)
    Tracker(project.settings).log_bytes(good, artifacts.SEEN, b"")

    def measure(*_: Any, **__: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes")

    monkeypatch.setattr("assay.usecases.helpers.rival.measure", measure)
    monkeypatch.setattr("assay.usecases.helpers.rival.seen_identities", lambda dataset: set())
    with pytest.raises(WorkError, match="measuring it failed .*not enough memory"):
        promote("digits", "2", project.settings)
    assert champion_of(project) == "1"


def test_who_lost_the_turn_after_the_decision_moves_no_alias(rivals: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project = rivals
    loosen_further(project, "0.0}, tolerance: 1.0}")
    logged = Tracker.log_text

    def at_last(self: Tracker, run_id: str, name: str, text: str) -> None:
        logged(self, run_id, name, text)
        if name == artifacts.GATE_REPORT:  # then this process stands still for a minute
            monkeypatch.setattr(Turn, "_renew", lambda turn: False)

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "log_text", at_last)
        with pytest.raises(WorkError, match="lost the turn with model digits"):
            promote("digits", "2", project.settings)
    assert champion_of(project) == "1"
    monkeypatch.undo()
    assert promote("digits", "2", project.settings)["decision"] == "promoted"


def test_an_alias_moves_only_from_the_champion_that_was_beaten(rivals: Project) -> None:
    registry = Registry(Tracker(rivals.settings))
    second = registry.get("digits", "2")
    with pytest.raises(WorkError, match="another version of 'digits' became champion meanwhile"):
        registry.crown(second, {}, None, lambda: None)
    assert champion_of(rivals) == "1"
    registry.crown(second, {}, registry.get("digits", "1"), lambda: None)

    def lost() -> None:
        raise WorkError("lost the turn")

    with pytest.raises(WorkError, match="lost the turn"):
        registry.rollback("digits", lost)
    assert champion_of(rivals) == "2"
    assert registry.rolled_back("digits") == []


def test_weights_that_were_rolled_back_stay_so_in_another_run(rivals: Project) -> None:
    project, registry = rivals, Registry(Tracker(rivals.settings))
    loosen_further(project, "0.0}, tolerance: 1.0}")
    promote("digits", "2", project.settings)
    rollback("digits", project.settings)
    first = registry.get("digits", "1")
    registry._client.create_model_version("digits", first.source, Runs.of(project).poor)
    result = promote("digits", None, project.settings)
    assert (result["version"], result["decision"], champion_of(project)) == ("3", "rejected", "1")
    assert "version 3 has the weights of version 2, which was rolled back at" in result["reasons"][0]
    assert promote("digits", "3", project.settings)["decision"] == "promoted"


def test_figures_of_other_code_are_said_to_be(ready: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project, runs = ready, Runs.of(ready)
    assert not any("measured on" in reason for reason in register(runs.good, project.settings)["reasons"])
    Tracker(project.settings)._client.delete_tag(runs.poor, f"{evaluations.METRICS}test")
    monkeypatch.setattr(evaluations, "code_sha256", lambda task: "of an edited metric")
    evaluate(runs.poor, "test", project.settings, nothing)
    monkeypatch.undo()
    reasons = register(runs.poor, project.settings)["reasons"]
    (said,) = [reason for reason in reasons if "measured on" in reason]
    assert said.startswith("measured on the test split with other code than it was trained with: commit ")
    Tracker(project.settings).set_tags(runs.poor, {f"{evaluations.MEASURED}test": "{"})
    with pytest.raises(InputError, match="its tag assay.measured_with.test: damaged"):
        promote("digits", "2", project.settings)
