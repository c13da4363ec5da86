"""Verbs that take a run are given a search or a trial: one true line says what to name instead."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from assay.errors import InputError
from assay.settings import Settings
from assay.tracking import artifacts
from assay.tracking.provenance import REQUIRED, Provenance
from assay.tracking.tracker import Tracker
from assay.usecases.evaluate import evaluate
from assay.usecases.helpers.trained import require_trained
from assay.usecases.promote import register
from assay.usecases.train import TrainRequest, requested_config
from tests.conftest import REPOSITORY


@pytest.fixture
def searched(settings: Settings, tracker: Tracker) -> tuple[str, str]:
    """The ids of a finished search of `digits`, and of a trial of it without weights."""
    tags = {**dict.fromkeys(REQUIRED, "x"), "experiment": "digits", "search": "s"}
    search = tracker.begin("kinds", Provenance(tags, {"search": {}}, "", kind="search"))
    own = {**tags, "search_id": search, "trial": "0"}
    trial = tracker.begin("kinds", Provenance(own, {}, "", kind="trial"), search, "trial-0000")
    for run_id in (search, trial):
        tracker.set_status(run_id, "FINISHED")
    return search, trial


@pytest.mark.parametrize("kind", ["search", "trial"])
def test_a_training_continues_neither_a_search_nor_a_trial(
    settings: Settings, tracker: Tracker, searched: tuple[str, str], tmp_path: Path, kind: str
) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    given = dict(zip(("search", "trial"), searched, strict=True))[kind]
    says = f"--resume {given}: a {kind}, not a run; to continue the search: `assay tune s --resume {searched[0]}`"
    with pytest.raises(InputError, match=f"^{re.escape(says)}$"):
        requested_config(TrainRequest("digits", resume=given), Settings(project=tmp_path), tracker)


@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
def test_a_search_and_a_trial_without_weights_are_neither_evaluated_nor_registered(
    settings: Settings, tracker: Tracker, searched: tuple[str, str], status: str
) -> None:
    for run_id, kind in zip(searched, ("search", "trial"), strict=True):
        tracker.set_status(run_id, status)
        says = (
            "it has no weights; name a trial of the `front` in results/searches/s/search.json, which is written when "
            "a session of the search ends"
        )
        with pytest.raises(InputError, match=f"^{kind} {run_id} cannot be evaluated: {re.escape(says)}$"):
            evaluate(run_id, "test", settings, lambda _: None)
        with pytest.raises(InputError, match=f"^{kind} {run_id} cannot be registered: {re.escape(says)}$"):
            register(run_id, settings)


def test_a_trial_with_weights_is_taken_for_a_run(tracker: Tracker, searched: tuple[str, str]) -> None:
    tracker.log_text(searched[1], artifacts.RECORD, "{}")
    require_trained(tracker.get(searched[1]), "evaluated", tracker)
