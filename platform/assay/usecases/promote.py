"""`assay register`, `promote` and `rollback`: from a finished run through the gate to the alias `champion`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.config.experiment import GateConfig
from assay.config.params import load_params
from assay.errors import InputError
from assay.settings import Settings
from assay.tracking import artifacts
from assay.tracking.gates import Decision, decide
from assay.tracking.provenance import PREFIX, missing
from assay.tracking.registry import CHAMPION, Registry, run_of
from assay.tracking.sessions import session_notes
from assay.tracking.tracker import Tracker
from assay.usecases.helpers.results import ExperimentResults, write_record
from assay.usecases.helpers.trained import (
    load_trained,
    measure,
    open_training_dataset,
    recorded_config,
    resolve_run,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from assay.tracking.run import Run

CLASSES = PREFIX + "classes_sha256"


def register(target: str, settings: Settings) -> dict[str, Any]:
    """Register a run's model, check it against the gate and, if it passes, make it champion.

    A run is registered only once; after that, its version is used. The model has the name of its experiment.

    Raises:
        InputError: the run did not finish, or its provenance is incomplete.
    """
    tracker = Tracker(settings)
    run_id = resolve_run(target, settings)
    run = tracker.get(run_id)
    lacks = missing(run.data.tags)
    if lacks or run.info.status != "FINISHED":
        status = f"its status is {run.info.status}: train it to the end"
        why = f"its provenance lacks {', '.join(lacks)}: train it again with --new" if lacks else status
        raise InputError(f"run {run_id} cannot be registered: {why}")
    registry = Registry(tracker)
    model = run.data.tags[PREFIX + "experiment"]
    version = registry.find(model, run_id)
    if version is None:
        config = recorded_config(run_id, tracker)
        dataset = open_training_dataset(run, settings, _silent)
        with tempfile.TemporaryDirectory() as folder:
            task = load_trained(run_id, config, dataset, tracker, Path(folder))
            version = registry.add(model, run_id, config, dataset, task)
    result = _judge(version, run, registry, settings)
    if target != run_id:
        write_record(ExperimentResults.of(settings.root, target).model, result)
    return result


def promote(model: str, number: str | None, settings: Settings) -> dict[str, Any]:
    """Check a version, by default the newest, against the gate, and make it champion if it passes."""
    registry = Registry(Tracker(settings))
    version = registry.get(model, number)
    return _judge(version, registry.tracker.get(run_of(version)), registry, settings)


def rollback(model: str, settings: Settings) -> dict[str, Any]:
    """Make the previous champion champion again."""
    restored, demoted = Registry(Tracker(settings)).rollback(model)
    reason = f"version {restored.version} is champion again in place of version {demoted.version}"
    return _result(restored, "rolled back", [reason], {"demoted": str(demoted.version)})


def _judge(version: ModelVersion, run: Run, registry: Registry, settings: Settings) -> dict[str, Any]:
    champion = registry.champion(version.name)
    if champion is not None and champion.version == version.version:
        report = json.loads(version.tags.get(PREFIX + "gate", "{}"))  # the reasons for which it was promoted
        reasons = [check["detail"] for check in report.get("checks", [])] + report.get("notes", [])
        return _result(version, "promoted", reasons or ["it is already the champion"], report)
    config = recorded_config(run.info.run_id, registry.tracker)
    rival, note = _rival(champion, run, registry, settings)
    note = note + session_notes(run.data.tags)
    decision = decide(
        _gate(version.name, settings, config.gate), config.task.headline, _metrics(run), missing(run.data.tags), rival
    )
    report = _report(version, champion, decision, note)
    registry.tracker.log_text(run.info.run_id, artifacts.GATE_REPORT, json.dumps(report, indent=2))
    if decision.passed:
        registry.crown(version, report)
        return _result(version, "promoted", decision.reasons + note, report)
    registry.reject(version, report)
    return _result(version, "rejected", decision.reasons + note, report)


def _rival(
    champion: ModelVersion | None, run: Run, registry: Registry, settings: Settings
) -> tuple[dict[str, float] | None, list[str]]:
    """The champion's metrics on the candidate's test split: as recorded if the data is the same, else measured."""
    if champion is None:
        return None, ["no champion to compare with"]
    tracker = registry.tracker
    other = tracker.get(run_of(champion))
    if other.data.tags[PREFIX + "dataset_hash"] == run.data.tags[PREFIX + "dataset_hash"]:
        return _metrics(other), []
    config, dataset = recorded_config(other.info.run_id, tracker), open_training_dataset(run, settings, _silent)
    same_task = config.task.name == recorded_config(run.info.run_id, tracker).task.name
    if not same_task or other.data.tags[CLASSES] != run.data.tags[CLASSES]:
        return None, ["not compared with the champion, which was trained for another task or other classes"]
    metrics, _ = measure(other.info.run_id, config, dataset, "test", tracker)
    return metrics, ["the champion was measured again on this dataset version"]


def _silent(_line: str) -> None:
    """No log: opening a dataset for a moment is not worth a line."""


def _gate(model: str, settings: Settings, recorded: GateConfig) -> GateConfig:
    """The experiment's gate in today's params.yaml; the recorded one if the experiment is gone."""
    experiments = load_params(settings.params_file).experiments
    return experiments[model].gate if model in experiments else recorded


def _metrics(run: Run) -> dict[str, float]:
    """The validation metrics of the kept weights and the test metrics, from the recorded evaluations."""
    metrics: dict[str, float] = {}
    for name, value in run.data.tags.items():
        if name.startswith(PREFIX + "evaluation."):
            metrics |= json.loads(value)
    return metrics


def _report(
    version: ModelVersion, champion: ModelVersion | None, decision: Decision, note: list[str]
) -> dict[str, Any]:
    return {
        "version": str(version.version),
        "champion_before": str(champion.version) if champion is not None else None,
        "checks": [vars(check) for check in decision.checks],
        "notes": note,
    }


def _result(version: ModelVersion, decision: str, reasons: list[str], report: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": version.name,
        "version": str(version.version),
        "alias": None if decision == "rejected" else CHAMPION,
        "decision": decision,
        "reasons": reasons,
        "run_id": version.run_id,
        "report": report,
    }
