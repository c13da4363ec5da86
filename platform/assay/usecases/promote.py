"""`assay register`, `promote` and `rollback`: from a finished run through the gate to the alias `champion`.

Each holds the turn of its model, and looks at the registry only then: what it decides holds when it acts.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from assay.config.experiment import GateConfig
from assay.config.params import load_params
from assay.errors import InputError
from assay.files import parse_json
from assay.log import Log
from assay.scratch import scratch_folder
from assay.settings import Settings
from assay.tracking import artifacts
from assay.tracking.gates import Decision, decide
from assay.tracking.provenance import PREFIX, missing
from assay.tracking.registry import CHAMPION, ROLLED_BACK, Registry, run_of
from assay.tracking.sessions import session_notes
from assay.tracking.tracker import Tracker
from assay.tracking.turns import Turn, turn
from assay.usecases.helpers.proof import prove
from assay.usecases.helpers.results import ExperimentResults, write_record
from assay.usecases.helpers.rival import compare, log_seen
from assay.usecases.helpers.trained import (
    as_trained,
    load_trained,
    open_training_dataset,
    recorded_config,
    recorded_metrics,
    require_finished,
    resolve_run,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from assay.tracking.run import Run


def _silent(_line: str) -> None:
    """No log."""


def register(target: str, settings: Settings, log: Log = _silent) -> dict[str, Any]:
    """Register a run's model, check it against the gate and, if it passes, make it champion.

    A run is registered only once; after that, its version is used. The model has the name of its experiment.

    Raises:
        InputError: the run did not finish, or its provenance is incomplete.
        WorkError: its weights are not the recorded ones, or the exported model does not answer as it should.
    """
    tracker = Tracker(settings)
    run_id = resolve_run(target, settings)
    run = tracker.get(run_id)
    if lacks := missing(run.data.tags):
        why = f"its provenance lacks {', '.join(lacks)}: train it again with --new"
        raise InputError(f"run {run_id} cannot be registered: {why}")
    require_finished(run, "registered")
    registry = Registry(tracker)
    model = run.data.tags[PREFIX + "experiment"]
    with _turn(model, registry, log) as held:
        version = registry.find(model, run_id) or _add(model, run, registry, held)
        result = _judge(version, run, registry, held, named=False)
        if target != run_id:
            write_record(ExperimentResults.of(settings.root, target).model, result)
    return result


def promote(model: str, number: str | None, settings: Settings, log: Log = _silent) -> dict[str, Any]:
    """Check a version, by default the newest, against the gate, and make it champion if it passes.

    A version that was rolled back is promoted only if it is named.
    """
    registry = Registry(Tracker(settings))
    registry.get(model, number)
    with _turn(model, registry, log) as held:
        version = registry.get(model, number)
        run = registry.tracker.get(run_of(version))
        return _judge(version, run, registry, held, named=number is not None)


def rollback(model: str, settings: Settings, log: Log = _silent) -> dict[str, Any]:
    """Make the previous champion champion again. What `results/` says of the one that was rolled back follows."""
    registry = Registry(Tracker(settings))
    registry.get(model, None)
    with _turn(model, registry, log) as held:
        held.require()
        restored, demoted = registry.rollback(model)
        _correct_results(demoted, settings)
    reason = f"version {restored.version} is champion again in place of version {demoted.version}"
    return _result(restored, "rolled back", [reason], {"demoted": str(demoted.version)})


def candidate(model: str, number: str | None, settings: Settings) -> dict[str, Any]:
    """The version that `promote` would look at now, with its own metrics: what a person is asked about."""
    registry = Registry(Tracker(settings))
    version = registry.get(model, number)
    return {
        "version": str(version.version),
        "metrics": recorded_metrics(registry.tracker.get(run_of(version))),
        "rolled_back": version.tags.get(ROLLED_BACK),
    }


def _turn(model: str, registry: Registry, log: Log) -> AbstractContextManager[Turn]:
    return turn(registry.tracker, f"model {model}", log)


def _add(model: str, run: Run, registry: Registry, held: Turn) -> ModelVersion:
    """Register a run's model once it is proved."""
    run_id, tracker = run.info.run_id, registry.tracker
    config = recorded_config(run_id, tracker)
    dataset = as_trained(run, open_training_dataset(run, tracker.settings, _silent), tracker)
    with scratch_folder(tracker.settings.root) as folder:
        task = load_trained(run, config, dataset, tracker, folder)
        log_seen(run, dataset, tracker)
        proof = partial(prove, task=task, config=config, dataset=dataset, recorded=recorded_metrics(run), folder=folder)
        return registry.add(model, run_id, config, dataset, task, proof, held.require)


def _judge(version: ModelVersion, run: Run, registry: Registry, held: Turn, named: bool) -> dict[str, Any]:
    """Hold a version against its gate and the champion, and move the alias if it passes."""
    champion = registry.champion(version.name)
    if champion is not None and champion.version == version.version:
        report = _report_of(version)
        reasons = [check["detail"] for check in report.get("checks", [])] + report.get("notes", [])
        return _result(version, "promoted", reasons or ["it is already the champion"], report)
    if ROLLED_BACK in version.tags and not named:
        return _held_back(version)
    config = recorded_config(run.info.run_id, registry.tracker)
    comparison, notes = compare(champion, run, registry, _silent)
    gate = _gate(version.name, registry.tracker.settings, config.gate)
    decision = decide(gate, config.task.headline, recorded_metrics(run), missing(run.data.tags), comparison)
    notes = [*notes, *decision.notes, *session_notes(run.data.tags)]
    report = _report(version, champion, decision, notes)
    held.require()
    registry.tracker.log_text(run.info.run_id, artifacts.GATE_REPORT, json.dumps(report, indent=2))
    if decision.passed:
        registry.crown(version, report)
        return _result(version, "promoted", decision.reasons + notes, report)
    registry.reject(version, report)
    return _result(version, "rejected", decision.reasons + notes, report)


def _held_back(version: ModelVersion) -> dict[str, Any]:
    """What is said of a version that was rolled back: always the same, so that DVC sees no change."""
    reason = (
        f"version {version.version} was rolled back at {version.tags[ROLLED_BACK]}: to promote it all the same, run "
        f"`assay promote {version.name} --version {version.version}`"
    )
    return _result(version, "rejected", [reason], _report_of(version))


def _correct_results(demoted: ModelVersion, settings: Settings) -> None:
    """Let `results/` no longer call a version champion that was rolled back; as `register` would write it now."""
    file = ExperimentResults.of(settings.root, demoted.name).model
    try:
        written = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):  # it calls nothing champion
        return
    if isinstance(written, dict) and written.get("version") == str(demoted.version):
        if file.is_symlink():
            file.unlink()  # it leads into DVC's cache, where nothing may change
        write_record(file, _held_back(demoted))


def _gate(model: str, settings: Settings, recorded: GateConfig) -> GateConfig:
    """The experiment's gate in today's params.yaml; the recorded one if the experiment is gone."""
    experiments = load_params(settings.params_file).experiments
    return experiments[model].gate if model in experiments else recorded


def _report_of(version: ModelVersion) -> dict[str, Any]:
    """The gate's last report on a version; empty before the first."""
    tag, where = PREFIX + "gate", f"version {version.version} of {version.name!r}"
    return parse_json(version.tags.get(tag, "{}"), f"{where}: its tag {tag}", "remove the tag")


def _report(
    version: ModelVersion, champion: ModelVersion | None, decision: Decision, notes: list[str]
) -> dict[str, Any]:
    return {
        "version": str(version.version),
        "champion_before": str(champion.version) if champion is not None else None,
        "checks": [vars(check) for check in decision.checks],
        "notes": notes,
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
