"""What was rolled back or replaced stays so until it is named, and `results/` says what the registry says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from assay.errors import InputError
from assay.tracking.registry import Registry
from assay.tracking.tracker import Tracker
from assay.usecases.promote import promote, register, rollback
from tests.conftest import Project
from tests.support.rivals import Runs, loosen_further


def in_results(project: Project, run_id: str) -> Path:
    """The folder with the experiment's results, of this run, at a gate that lets everything pass."""
    loosen_further(project, "0.0}, tolerance: 1.0}")
    results = project.root / "results/digits"
    results.mkdir(parents=True)
    (results / "train.json").write_text(json.dumps({"run_id": run_id}))
    return results


def test_a_version_that_was_rolled_back_stays_so_unless_it_is_named(rivals: Project) -> None:
    project, settings = rivals, rivals.settings
    results = in_results(project, Runs.of(project).poor)
    assert register("digits", settings)["version"] == "2"
    assert json.loads((results / "model.json").read_text())["alias"] == "champion"

    assert rollback("digits", settings)["version"] == "1"
    after = (results / "model.json").read_bytes()
    assert json.loads(after)["alias"] is None
    for again in (lambda: register("digits", settings), lambda: promote("digits", None, settings)):
        result = again()
        assert (result["version"], result["decision"]) == ("2", "rejected")
        assert re.search(r"version 2 was rolled back at .*: to promote it all the same", result["reasons"][0])
    assert (results / "model.json").read_bytes() == after, "what DVC compares does not change any more"

    assert promote("digits", "2", settings)["decision"] == "promoted"
    assert register("digits", settings)["decision"] == "promoted"
    rollback("digits", settings)
    with pytest.raises(InputError, match="none to go back to"):
        rollback("digits", settings)


def test_results_follow_the_alias_and_a_rollback_never_leads_back_to_where_it_came_from(rivals: Project) -> None:
    project, settings = rivals, rivals.settings
    results = in_results(project, Runs.of(project).good)

    def said() -> tuple[str, str | None]:
        """What `results/` says of version 1, which DVC compares: as `register` would write it now."""
        before = (results / "model.json").read_bytes()
        after = register("digits", settings)
        assert (results / "model.json").read_bytes() == before
        return str(after["decision"]), after["alias"]

    assert register("digits", settings)["alias"] == "champion"
    assert promote("digits", "2", settings)["decision"] == "promoted"
    assert said() == ("rejected", None)
    assert "was champion, and was replaced by version 2" in register(Runs.of(project).good, settings)["reasons"][0]
    assert promote("digits", "1", settings)["decision"] == "promoted"
    assert said() == ("promoted", "champion")
    assert rollback("digits", settings)["version"] == "2"
    assert said() == ("rejected", None)
    with pytest.raises(InputError, match="no champion before version 2 that was not rolled back"):
        rollback("digits", settings)
    champion = Registry(Tracker(settings)).champion("digits")
    assert champion is not None
    assert "assay.rolled_back_at" not in champion.tags


def test_a_champion_that_fails_a_raised_gate_is_said_to(rivals: Project) -> None:
    loosen_further(rivals, "1.0}}")
    result = register(Runs.of(rivals).good, rivals.settings)
    assert result["alias"] == "champion"
    assert re.search(r"^it stays champion, but fails today's gate: test/accuracy: 0\.\d+ < 1$", result["reasons"][-1])
