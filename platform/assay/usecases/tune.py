"""`assay tune` and `assay search`: from a block of `searches:` to trials, a front and a page.

The composition root; what to try next, how it runs and how it is recorded are elsewhere.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from assay.config.schema import resolved
from assay.errors import InputError, Interrupted, WorkError
from assay.report.search import SearchStory, front
from assay.settings import Settings
from assay.tracking.runs import Claim, claim, reap, status_as_earned
from assay.tracking.tracker import Tracker
from assay.tracking.trials import TrialRecorder
from assay.train.folder import CHECKPOINTS
from assay.tune.executor import execute
from assay.tune.journal import Journal, working_seconds
from assay.tune.search import Search, Trial
from assay.tune.trial import WEIGHTS, TrialJob, trial_folder
from assay.tune.work import Work
from assay.usecases.helpers import search_outputs
from assay.usecases.helpers.search_context import SearchContext
from assay.usecases.helpers.search_progress import SearchProgress
from assay.usecases.helpers.story import Curves, row, story
from assay.workers.ray_session import cluster_joined

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class TuneRequest:
    """What the command line asks for. `minutes` and `parallel` are for this session alone."""

    search: str
    resume: str | None = None
    new: bool = False
    minutes: float | None = None
    parallel: int | None = None


def tune(request: TuneRequest, settings: Settings, progress: SearchProgress) -> dict[str, Any]:
    """Run, continue or find a search; returns its record.

    Raises:
        InputError: anything that can be known to be wrong before the first trial.
        WorkError: too many trials failed in a row, or none finished; the search says FAILED and why.
        Interrupted: a signal ended it; the same command continues it.
    """
    if request.minutes is not None and request.minutes <= 0:
        raise InputError(f"--minutes: must be above 0, not {request.minutes:g}")
    with cluster_joined(settings, progress.log):
        return _tune(request, settings, progress)


def _tune(request: TuneRequest, settings: Settings, progress: SearchProgress) -> dict[str, Any]:
    context = SearchContext.of(request.search, settings, request.parallel, progress.log)
    tracker = Tracker(settings)
    search_id = None if request.new else context.find(tracker, request.resume)
    if search_id is not None and (record := _finished(search_id, context, tracker)) is not None:
        progress.log(f"nothing to search: search {search_id} has come to its end ({record['reason']})")
        search_outputs.write(settings.search_folder(request.search), record, tracker)
        return record
    if search_id is not None:
        context.require_same(search_id, settings.runs / search_id / JOURNAL)
    for run_id in reap(settings, tracker):
        progress.log(f"run {run_id} had died; marked KILLED")
    provenance = context.provenance()
    with (
        claim(settings, tracker, context.config.experiment, provenance, search_id, request.new, reopen=True) as held,
        status_as_earned(held.run_id, tracker),
        closing(Journal(held.folder / JOURNAL)) as journal,
    ):
        record = _Session(request, context, held, journal, tracker, progress).run()
        finished = record["status"] == "FINISHED"
        tracker.set_status(held.run_id, "FINISHED" if finished else "KILLED", record["reason"])
    search_outputs.write(settings.search_folder(request.search), record, tracker)
    return record


def _finished(search_id: str, context: SearchContext, tracker: Tracker) -> dict[str, Any] | None:
    """The record of a search that has come to its end under the budget of today."""
    if tracker.get(search_id).info.status != "FINISHED":
        return None
    record = tracker.record(search_id)
    return record if record["budget"] == resolved(context.config.budget) else None


class _Session:
    """One process's work on a search: from the journal's end on, to the search's end or to a stop."""

    def __init__(
        self,
        request: TuneRequest,
        context: SearchContext,
        held: Claim,
        journal: Journal,
        tracker: Tracker,
        progress: SearchProgress,
    ) -> None:
        self.context, self.held, self.journal = context, held, journal
        self.tracker, self.progress = tracker, progress
        self.before = working_seconds(journal.events)
        self.began = time.monotonic()
        self.deadline = self._deadline(request.minutes)
        if not journal.events:
            journal.append("search", **context.header())
        self.search = Search(context.config, context.space, context.experiment, journal)
        journal.append("session", trials=len(self.search.trials))
        self.recorder = TrialRecorder(
            tracker, held.run_id, context.config.experiment, context.trial_provenance, progress.log
        )
        self.curves = Curves(held.folder)
        self.baseline = search_outputs.baseline(context)
        at = held.folder / "trials"
        self.kept = {int(path.parent.name) for path in at.glob(f"*/{WEIGHTS}")}  # numbers of trials

    def run(self) -> dict[str, Any]:
        try:
            self._work()
        finally:
            self.recorder.close()
        return self._close()

    def _work(self) -> None:
        done = self.search.ended
        for trial in done:  # what an earlier session left unrecorded
            self.recorder.put(self.context.entry(self.held.folder, trial))
        if done:
            self.progress.log(f"going on with search {self.held.run_id}: {len(done)} trials are done")
        work = Work(self.search, self._job, self, self.held.folder, self.context.plan, self.deadline)
        with self.progress.showing(self.story):
            execute(work, self.context.settings, self.progress.tick, self.progress.log)

    def _close(self) -> dict[str, Any]:
        """What comes after the last trial: the record, or why there is none."""
        search = self.search
        if search.broken:
            raise WorkError(f"{search.broken}; mend it, then go on with `--resume {self.held.run_id}`")
        ended = self._total_spent() if search.open else search.finished
        paused = None if ended else self._paused()
        told = self.story()
        if not front(told.trials, told.objectives):
            raise WorkError(f"no trial finished ({ended or paused}); search {self.held.run_id} says why of each")
        status = "FINISHED" if ended else "PAUSED"
        record = search_outputs.record(told, self.context, search, status, str(ended or paused), self._seconds())
        search_outputs.keep(told, record, self.context, self.held.folder, search, self.tracker)
        return record

    def _total_spent(self) -> str | None:
        """Why the search ends here, where it is the minutes of its budget."""
        total = self.context.config.budget.minutes
        return f"budget of {total:g} minutes" if total is not None and self._seconds() >= total * 60 else None

    def _paused(self) -> str:
        """Why the session ends here, where it is its own minutes. Raises `Interrupted` where somebody stopped it."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "the session's minutes are over; the same command goes on"
        done = len(self.search.ended)
        raise Interrupted(
            f"stopped after {done} trials, saved; the same command, or --resume {self.held.run_id}, goes on"
        )

    def story(self) -> SearchStory:
        """The search so far."""
        context, search = self.context, self.search
        budget = context.config.budget
        details = {"time": f"{self._seconds() / 60:.1f} minutes", **search_outputs.facts(context)}
        if budget.trials is not None:
            details["total"] = str(budget.trials)
        clock = None if self.deadline is None else self.deadline - time.monotonic()
        left = search_outputs.seconds_left(search, context.plan.parallel, self._seconds(), clock)
        if left is not None and search.finished is None:
            details["time left"] = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
        run_ids = self.recorder.run_ids
        return story(context.name, self.held.run_id, search, details, run_ids, self.curves, self.baseline)

    # --- what the executor tells ---

    def _job(self, trial: Trial) -> TrialJob:
        return self.context.job(self.held.run_id, self.held.folder, trial, self.search.milestones)

    def started(self, trial: Trial) -> None:
        self.recorder.put(self.context.entry(self.held.folder, trial))

    def ended(self, trial: Trial) -> None:
        """Record it, and keep the weights of the best alone; of a population, the states that others may take over."""
        self.recorder.put(self.context.entry(self.held.folder, trial))
        metric = next(iter(self.search.objectives))
        best = {r.number for r in front([row(t, metric) for t in self.search.trials], self.search.objectives)}
        for number in (self.kept | {trial.number}) - best:
            at = trial_folder(self.held.folder, number)
            (at / WEIGHTS).unlink(missing_ok=True)
            if self.context.config.sampler != "pbt":
                shutil.rmtree(at / CHECKPOINTS, ignore_errors=True)
        if self.context.config.sampler == "pbt":
            self._forget_states()
        self.kept = best

    def _forget_states(self) -> None:
        """Remove the states of an age from which nobody starts any more: all of the population is an age older."""
        done = [trial for trial in self.search.trials if trial.status == "finished"]
        ages = Counter(trial.epochs for trial in done)
        for trial in done:
            if ages[trial.epochs + self.context.config.interval] >= self.context.config.population:
                shutil.rmtree(trial_folder(self.held.folder, trial.number) / CHECKPOINTS, ignore_errors=True)

    # --- time ---

    def _deadline(self, minutes: float | None) -> float | None:
        total = self.context.config.budget.minutes
        left = [minutes * 60] if minutes is not None else []
        left += [total * 60 - self.before] if total is not None else []
        return self.began + min(left) if left else None

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.began
