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
from assay.tune.search import Search, Trial
from assay.tune.trial import Runner, begin
from assay.tune.work import TUNE, Work
from assay.workers.launch import forget_end
from assay.workers.ray_private import ray_alive


def run_trials(work: Work, over: threading.Event) -> None:
    """Run trials until the search has no more, or a stop is asked for. Once `over` is set, nothing is told to it."""
    run = tune.RunConfig(name=TUNE, storage_path=str(work.folder), verbose=0)
    how = tune.TuneConfig(search_alg=_Source(work, over), scheduler=_Judge(work), num_samples=-1, reuse_actors=True)
    tune.Tuner(tune.with_resources(Slot, work.plan.resources), tune_config=how, run_config=run).fit()


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


class _Live:
    """Tune writes down what it is given, to restore it later; of a live search there is nothing to write."""

    work: Work

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Source(_Live, Searcher):
    """Gives Tune the next trial whenever a slot is free, and hears how each ended."""

    def __init__(self, work: Work, over: threading.Event) -> None:
        super().__init__(metric="epoch", mode="max")
        self.work = work
        self.over = over
        self.numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        search = self.work.search
        if self.over.is_set():
            return Searcher.FINISHED
        if self.work.stopping:
            return None if search.running else Searcher.FINISHED
        if len(search.running) >= self.work.plan.parallel:
            return None
        while (trial := search.next()) is not None:
            try:
                job = self.work.job(trial)
            except InputError as error:  # values that are fine each by itself and do not go together
                search.end(trial.number, "failed", reason=str(error))
                self.work.listener.ended(trial)
                continue
            self.numbers[trial_id] = trial.number
            job.folder.mkdir(parents=True, exist_ok=True)
            forget_end(job.folder)
            self.work.listener.started(trial)
            return {"trial": job.plain()}
        return None if search.running else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        number = self.numbers.pop(trial_id)
        search = self.work.search
        if self.over.is_set():
            return
        trial = search.trials[number]
        if error or result is None:
            if not ray_alive():  # that is not the trial's fault
                return
            if search.died(number, _why(self.work.folder / TUNE, trial_id)):
                return
        else:
            _end(search, trial, json.loads(result["report"]))
        if trial.status != "waiting":
            self.work.listener.ended(trial)

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


class _Judge(_Live, FIFOScheduler):
    """Asks the search, at each report, whether the trial goes on."""

    def __init__(self, work: Work) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = work

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        report = json.loads(result["report"])
        stops = self.work.search.report(trial.config["trial"]["number"], report["epoch"], report["metrics"])
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


def _end(search: Search, trial: Trial, result: Mapping[str, Any]) -> None:
    """Tell the search how a trial ended, from its last report."""
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
            reason = f"it reports no {missing[0]}; it reports {', '.join(metrics)}"
            search.end(trial.number, "failed", reason=reason, seconds=seconds)
        else:
            search.end(trial.number, "finished", metrics, seconds=seconds, facts=result.get("facts"))


def _why(folder: Path, trial_id: str) -> str:
    """The last line of the error that Tune wrote down for a trial whose worker died."""
    found = sorted(folder.glob(f"*{trial_id}*/error.txt"))
    lines = [line for line in found[-1].read_text(errors="replace").splitlines() if line.strip()] if found else []
    return lines[-1].strip()[:300] if lines else "the worker died without a word"
