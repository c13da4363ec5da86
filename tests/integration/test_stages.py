"""What DVC records as the inputs of a stage is what its outputs are from, even if somebody edits while it runs."""

from __future__ import annotations

import pytest

from assay.config.params import load_params
from assay.errors import InputError, WorkError
from assay.usecases import evaluate as evaluation
from assay.usecases import promote as promotion
from assay.usecases import train as training
from assay.usecases.helpers.results import ExperimentResults
from tests.conftest import Project
from tests.support.meanwhile import meanwhile
from tests.support.rivals import Runs


def edit(project: Project, before: str, after: str) -> None:
    text = (project.root / "params.yaml").read_text()
    assert before in text
    (project.root / "params.yaml").write_text(text.replace(before, after, 1))


def test_a_stage_whose_settings_are_edited_while_it_trains_is_not_done(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(project, "workers: 2", "workers: 0")
    edit(project, "epochs: 20", "epochs: 1")
    results = ExperimentResults.of(project.root, "digits")
    monkeypatch.setenv("DVC_STAGE", "train@digits")
    with monkeypatch.context() as patch:
        meanwhile(training, "launch", lambda: edit(project, "epochs: 1", "epochs: 2"), patch)
        with pytest.raises(WorkError, match="the settings, the data or the code of 'digits' changed meanwhile"):
            project.train("digits")
        assert not results.record.exists()
    record = project.train("digits")
    assert results.read(results.record)["run_id"] == record["run_id"]
    assert load_params(project.root / "params.yaml").experiment("digits").train.epochs == 2


def test_a_stage_whose_gate_is_edited_while_it_registers_is_not_done(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runs.of(ready).good
    meanwhile(promotion, "compare", lambda: edit(ready, "0.5}}", "0.6}}"), monkeypatch)
    monkeypatch.setenv("DVC_STAGE", "register@digits")
    with pytest.raises(WorkError, match="the gate of 'digits' changed meanwhile"):
        promotion.register(run, ready.settings)
    assert promotion.register(run, ready.settings)["alias"] == "champion"


def test_an_evaluation_of_a_run_that_was_replaced_meanwhile_leaves_results_alone(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, results = Runs.of(ready), ExperimentResults.of(ready.root, "digits")
    results.folder.mkdir(parents=True, exist_ok=True)
    results.record.write_text(f'{{"run_id": "{runs.good}"}}')
    replaced = lambda: results.record.write_text(f'{{"run_id": "{runs.poor}"}}')  # noqa: E731
    meanwhile(evaluation, "_log_points", replaced, monkeypatch)
    with pytest.raises(WorkError, match="the run of experiment 'digits' changed meanwhile"):
        evaluation.evaluate("digits", "test", ready.settings, lambda _: None)
    assert not results.metrics.exists()


def test_code_that_is_edited_after_its_import_is_never_recorded(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.inputs._as_imported", {"classification": "of before"})
    with pytest.raises(InputError, match="the training code has changed since this process imported it"):
        project.train("digits")
