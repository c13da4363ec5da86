"""`assay register`, `promote` and `rollback`: from a finished run through the gate to the alias `champion`.

Each holds the turn of its model, and looks at the registry only then: what it decides holds when it acts.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from assay.config.experiment import GateConfig
from assay.config.params import load_params
from assay.errors import AssayError, InputError
from assay.files import load_json, parse_json
from assay.log import Log
from assay.scratch import scratch_folder
from assay.settings import Settings
from assay.tracking import artifacts
from assay.tracking.evaluations import measuring_notes, recorded_metrics
from assay.tracking.gates import Decision, decide
from assay.tracking.known_store import known
from assay.tracking.provenance import PREFIX, WEIGHTS_SHA256, missing
from assay.tracking.registry import CHAMPION, ROLLED_BACK, Registry, run_of
from assay.tracking.sessions import session_notes
from assay.tracking.tracker import Tracker
from assay.tracking.turns import Turn, turn
from assay.usecases.helpers.proof import prove
from assay.usecases.helpers.results import ExperimentResults, write_record
from assay.usecases.helpers.rival import compare, log_seen, unknown_past
from assay.usecases.helpers.stage import changed, unchanged
from assay.usecases.helpers.trained import (
    as_trained,
    load_trained,
    open_training_dataset,
    recorded_config,
    require_explained,
    require_trained,
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
        InputError: the run has no weights, or its provenance is incomplete.
        WorkError: its weights or provenance are not what was recorded, or the exported model does not answer rightly.
    """
    tracker = known(Tracker(settings))
    run_id = resolve_run(target, settings)
    run = tracker.get(run_id)
    require_trained(run, "registered", tracker)
    require_explained(run, tracker)
    registry = Registry(tracker)
    model = run.data.tags[PREFIX + "experiment"]
    gate = partial(_gate, model, settings, GateConfig())
    with unchanged(f"the gate of {model!r}", gate), _turn(model, registry, log) as held:
        version = registry.find(model, run_id) or _add(model, run, registry, held)
        result = _judge(version, run, registry, held, log, named=False)
        if target != run_id:
            if resolve_run(target, settings) != run_id:
                raise changed(f"the run of experiment {target!r}")
            write_record(ExperimentResults.of(settings.root, target).model, result)
    return result


def promote(model: str, number: str | None, settings: Settings, log: Log = _silent) -> dict[str, Any]:
    """Check a version, by default the newest, against the gate, and make it champion if it passes.

    A version that was rolled back is promoted only if it is named.
    """
    registry = Registry(known(Tracker(settings)))
    registry.get(model, number)
    with _turn(model, registry, log) as held:
        version = registry.get(model, number)
        run = registry.tracker.get(run_of(version))
        require_explained(run, registry.tracker)
        return _judge(version, run, registry, held, log, named=number is not None)


def rollback(model: str, settings: Settings, log: Log = _silent) -> dict[str, Any]:
    """Make the previous champion champion again."""
    registry = Registry(known(Tracker(settings)))
    registry.get(model, None)
    with _turn(model, registry, log) as held:
        restored, demoted = registry.rollback(model, held.require)
        _correct_results(model, registry, log)
    reason = f"version {restored.version} is champion again in place of version {demoted.version}"
    return _result(restored, "rolled back", [reason], {"demoted": str(demoted.version)})


def candidate(model: str, number: str | None, settings: Settings) -> dict[str, Any]:
    """The version that `promote` would look at now, with its own metrics: what a person is asked about."""
    registry = Registry(known(Tracker(settings)))
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


def _judge(version: ModelVersion, run: Run, registry: Registry, held: Turn, log: Log, named: bool) -> dict[str, Any]:
    """Hold a version against its gate and the champion, and move the alias if it passes."""
    held.require()
    champion = registry.settle(version.name)
    version = registry.get(version.name, str(version.version))
    standing = _standing(version, champion, registry)
    if standing is None and not named:
        standing = _as_rolled_back(version, run, registry)
    if standing is not None and (not named or standing["alias"]):
        _correct_results(version.name, registry, log)  # a kill may have kept those who moved the alias from it
        return standing
    config = recorded_config(run.info.run_id, registry.tracker)
    comparison, notes = compare(champion, run, registry, _silent)
    gate = _gate(version.name, registry.tracker.settings, config.gate)
    decision = decide(gate, config.task.headline, recorded_metrics(run), missing(run.data.tags), comparison)
    notes = [*notes, *decision.notes, *unknown_past(config, "it")]
    notes += [*session_notes(run.data.tags), *measuring_notes(run)]
    report = _report(version, champion, decision, notes)
    held.require()
    registry.tracker.log_text(run.info.run_id, artifacts.GATE_REPORT, json.dumps(report, indent=2))
    if decision.passed:
        registry.crown(version, report, champion, held.require)
        _correct_results(version.name, registry, log)
        return _result(version, "promoted", decision.reasons + notes, report)
    registry.reject(version, report)
    return _result(version, "rejected", decision.reasons + notes, report)


def _standing(version: ModelVersion, champion: ModelVersion | None, registry: Registry) -> dict[str, Any] | None:
    """What is said of a version that is not judged again unless it is named: the champion, and those that were it.

    It is the same as long as the alias stays where it is, so that DVC sees no change.
    """
    if champion is not None and champion.version == version.version:
        report = _report_of(version)
        reasons = [check["detail"] for check in report.get("checks", [])] + report.get("notes", [])
        reasons = (reasons or ["it is already the champion"]) + _outgrown(version, registry)
        return _result(version, "promoted", reasons, report)
    if ROLLED_BACK in version.tags:
        what = f"was rolled back at {version.tags[ROLLED_BACK]}"
    elif champion is not None and registry.had_alias_before(version, champion):
        what = f"was champion, and was replaced by version {champion.version}"
    else:
        return None
    return _unless_named(version, what)


def _as_rolled_back(version: ModelVersion, run: Run, registry: Registry) -> dict[str, Any] | None:
    """What is said of a version whose weights, by another run, were rolled back."""
    weights = run.data.tags.get(WEIGHTS_SHA256)
    for other in registry.rolled_back(version.name):
        with suppress(InputError):  # the run of the other one was deleted
            if registry.tracker.get(run_of(other)).data.tags.get(WEIGHTS_SHA256, "unknown") == weights:
                when = other.tags[ROLLED_BACK]
                what = f"has the weights of version {other.version}, which was rolled back at {when}"
                return _unless_named(version, what)
    return None


def _unless_named(version: ModelVersion, what: str) -> dict[str, Any]:
    again = f"to promote it all the same, run `assay promote {version.name} --version {version.version}`"
    return _result(version, "rejected", [f"version {version.version} {what}: {again}"], _report_of(version))


def _outgrown(champion: ModelVersion, registry: Registry) -> list[str]:
    """Where the champion does not meet the gate of today, which may have been raised since it was promoted."""
    run = registry.tracker.get(run_of(champion))
    config = recorded_config(run.info.run_id, registry.tracker)
    gate = _gate(champion.name, registry.tracker.settings, config.gate)
    decision = decide(gate, config.task.headline, recorded_metrics(run), [], None)
    return [] if decision.passed else [f"it stays champion, but fails today's gate: {'; '.join(decision.reasons)}"]


def _correct_results(model: str, registry: Registry, log: Log) -> None:
    """Let `results/`, once the alias has moved, call that version champion that is it: as `register` would write it."""
    settings = registry.tracker.settings
    file = ExperimentResults.of(settings.root, model).model
    try:
        written = load_json(file.read_bytes())
        version = registry.get(model, str(written["version"]))
        now = _standing(version, registry.champion(model), registry)
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # it calls nothing champion
        return
    except AssayError as error:
        log(f"warning: {file} may name another champion than the registry ({error}): run `dvc repro register@{model}`")
        return
    if now is not None and now["alias"] != written.get("alias"):
        if file.is_symlink():
            file.unlink()  # it leads into DVC's cache, where nothing may change
        write_record(file, now)


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
