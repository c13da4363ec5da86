"""The search behind Ray Tune's own interfaces: a searcher, a scheduler, and the actor of a slot."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from assay.errors import InputError
from assay.train.folder import SPOOL
from assay.tune.live import TUNE, LiveSearch
from assay.tune.search import Search, Trial
from assay.tune.trial import Runner, begin
from assay.workers.launch import forget_end
from assay.workers.ray_private import ray_alive


def run_trials(live: LiveSearch, over: threading.Event) -> None:
    """Run trials until the search has no more, or a stop is requested. Once `over` is set, no more is reported."""
    run = tune.RunConfig(name=TUNE, storage_path=str(live.folder), verbose=0)
    how = tune.TuneConfig(search_alg=_Source(live, over), scheduler=_Judge(live), num_samples=-1, reuse_actors=True)
    tune.Tuner(tune.with_resources(Slot, live.plan.resources), tune_config=how, run_config=run).fit()


class Slot(tune.Trainable):
    """The actor of a slot; `reset_config` gives it the next trial."""

    runner: Runner

    def setup(self, config: dict[str, Any]) -> None:
        self.runner = begin(config["trial"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.runner.close()
        self.runner = begin(new_config["trial"])
        return True

    def step(self) -> dict[str, Any]:
        report = self.runner.advance()
        return {"report": json.dumps(report), "done": report["done"]}  # as text: Tune takes nested results apart

    def cleanup(self) -> None:
        self.runner.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:  # noqa: ARG002
        return None  # a trial keeps its own in its folder

    def load_checkpoint(self, checkpoint: Any) -> None: ...


class _Unsaved:
    """Tune saves the objects it is given, to restore them later; a search has its own journal."""

    live: LiveSearch

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Source(_Unsaved, Searcher):
    """Gives Tune the next trial whenever a slot is free, and reports to the search how each ended."""

    def __init__(self, live: LiveSearch, over: threading.Event) -> None:
        super().__init__(metric="epoch", mode="max")
        self.live = live
        self.over = over
        self.numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        search = self.live.search
        if self.over.is_set():
            return Searcher.FINISHED
        if self.live.stop_requested():
            return None if search.running else Searcher.FINISHED
        if len(search.running) >= self.live.plan.parallel:
            return None
        while (trial := search.next()) is not None:
            try:
                assignment = self.live.assign(trial)
            except InputError as error:  # each value is fine, together they are not
                search.end(trial.number, "failed", reason=str(error))
                self.live.listener.ended(trial)
                continue
            self.numbers[trial_id] = trial.number
            assignment.folder.mkdir(parents=True, exist_ok=True)
            forget_end(assignment.folder)
            self.live.listener.started(trial)
            return {"trial": assignment.plain()}
        return None if search.running else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        number = self.numbers.pop(trial_id)
        search = self.live.search
        if self.over.is_set():
            return
        trial = search.trials[number]
        if error or result is None:
            if not ray_alive():  # that is not the trial's fault
                return
            spool = self.live.trial_folder(trial) / SPOOL
            reached = spool.stat().st_size if spool.exists() else 0
            if search.died(number, _why(self.live.folder / TUNE, trial_id), reached):
                return
        else:
            _end(search, trial, json.loads(result["report"]))
        if trial.status != "waiting":
            self.live.listener.ended(trial)

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


class _Judge(_Unsaved, FIFOScheduler):
    """Lets the search decide, at each report, whether the trial continues."""

    def __init__(self, live: LiveSearch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = live

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        report = json.loads(result["report"])
        stops = self.live.search.report(trial.config["trial"]["number"], report["epoch"], report["metrics"])
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


def _end(search: Search, trial: Trial, result: Mapping[str, Any]) -> None:
    """Report to the search how a trial ended, from its last report."""
    seconds = result["seconds"]
    if result.get("interrupted"):
        search.release(trial.number)
    elif "failure" in result:
        search.end(trial.number, "failed", reason=result["failure"], seconds=seconds)
    elif not result["done"]:
        status = "over" if result["epoch"] == 0 else "stopped"
        search.end(trial.number, status, {**trial.costs, **result["metrics"]}, seconds=seconds)
    else:
        search.report(trial.number, result["epoch"], result["metrics"])
        metrics = {**trial.costs, **result["metrics"]}
        missing = [name for name in search.objectives if name not in metrics]
        if missing:
            reason = f"it does not report {missing[0]}; it reports {', '.join(metrics)}"
            search.end(trial.number, "failed", reason=reason, seconds=seconds)
        else:
            search.end(trial.number, "finished", metrics, seconds=seconds, outcome=result.get("outcome"))


def _why(folder: Path, trial_id: str) -> str:
    """The last line of the error that Tune recorded for a trial whose worker died."""
    found = sorted(folder.glob(f"*{trial_id}*/error.txt"))
    lines = [line for line in found[-1].read_text(errors="replace").splitlines() if line.strip()] if found else []
    return lines[-1].strip()[:300] if lines else "the worker died without an error message"
