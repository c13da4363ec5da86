"""`assay tune`: from a block of `searches:` to trials, a front and a page.

It only joins the steps. What to try next, how it runs and how it is recorded are elsewhere.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from assay.config.experiment import ExperimentConfig
from assay.config.params import load_params
from assay.config.search import SearchConfig
from assay.errors import InputError, Interrupted, WorkError
from assay.report.search import SearchSnapshot, front
from assay.settings import Settings
from assay.tracking.known_store import known
from assay.tracking.remote import open_tracker
from assay.tracking.runs import Claim, claim, reap, status_as_earned
from assay.tracking.sessions import note_starts, sessions_record
from assay.tracking.tracker import Tracker
from assay.tracking.trials import TrialRecorder
from assay.train.folder import CHECKPOINTS
from assay.tune.executor import execute
from assay.tune.journal import Journal, working_seconds
from assay.tune.live import LiveSearch
from assay.tune.search import Search, Trial
from assay.tune.trial import WEIGHTS, TrialAssignment, trial_folder
from assay.usecases.helpers import search_outputs
from assay.usecases.helpers.results import SearchResults, write_search
from assay.usecases.helpers.search_context import SearchContext
from assay.usecases.helpers.search_progress import SearchProgress
from assay.usecases.helpers.search_snapshot import TrialCurves, take_snapshot, trial_row
from assay.usecases.helpers.stage import unchanged
from assay.workers.ray_session import cluster_joined
from assay.workers.starts import note_start

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class TuneRequest:
    """What to search. `minutes` and `parallel` are for this session only."""

    search: str
    resume: str | None = None
    new: bool = False
    minutes: float | None = None
    parallel: int | None = None


def tune(request: TuneRequest, settings: Settings, progress: SearchProgress) -> dict[str, Any]:
    """Run, continue or find a search; returns its record.

    Raises:
        InputError: anything that can be known to be wrong before the first trial.
        WorkError: too many trials failed in a row, or none finished; the search has the status FAILED and the reason.
        Interrupted: a signal stopped it; the same command continues it.
    """
    if request.minutes is not None and request.minutes <= 0:
        raise InputError(f"--minutes: must be above 0, not {request.minutes:g}")
    asked = partial(_asked, request.search, settings)
    with unchanged(f"search {request.search!r}", asked), cluster_joined(settings, progress.log):
        return _tune(request, settings, progress)


def _asked(name: str, settings: Settings) -> tuple[SearchConfig, ExperimentConfig]:
    """What params.yaml says of a search now."""
    params = load_params(settings.params_file)
    search = params.search(name)
    return search, params.experiment(search.experiment)


def _tune(request: TuneRequest, settings: Settings, progress: SearchProgress) -> dict[str, Any]:
    context = SearchContext.of(request.search, settings, request.parallel, progress.log)
    tracker = known(open_tracker(settings))
    search_id = None if request.new else context.find(tracker, request.resume)
    results = SearchResults.of(settings.root, request.search)
    if search_id is not None and (record := context.finished_record(tracker, search_id)) is not None:
        progress.log(f"nothing to search: search {search_id} is finished ({record['reason']})")
        write_search(results, record, tracker)
        return record
    if search_id is not None:
        context.require_same(search_id, settings.runs / search_id / JOURNAL)
    for run_id in reap(settings, tracker):
        progress.log(f"run {run_id} died earlier; its status is now KILLED")
    provenance = context.provenance()
    experiment = context.config.experiment
    with claim(settings, tracker, experiment, provenance, search_id, request.new, context.is_finished(tracker)) as held:
        if held.finished:  # by another process in the meantime
            record = tracker.record(held.run_id)
        else:
            with status_as_earned(held.run_id, tracker), closing(Journal(held.folder / JOURNAL)) as journal:
                record = _Session(request, context, held, journal, tracker, progress).run()
            finished = record["status"] == "FINISHED"
            tracker.set_status(held.run_id, "FINISHED" if finished else "KILLED", record["reason"])
        write_search(results, record, tracker)
        return record


class _Session:
    """One process's work on a search: from where the journal ends to the end of the search, or until it is stopped."""

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
        note_start(held.folder, held.session, len(self.search.trials), gpu=False)
        self.tags = note_starts(tracker, held.run_id, held.folder)
        self.recorder = TrialRecorder(
            tracker, held.run_id, context.config.experiment, context.trial_provenance, progress.log, held.session
        )
        self.curves = TrialCurves(held.folder)
        self.baseline = search_outputs.measure_baseline(context)
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
        for trial in done:  # in case an earlier session did not record them
            self.recorder.put(self.context.entry(self.held.folder, trial))
        if done:
            self.progress.log(f"continuing search {self.held.run_id}: {len(done)} trials are done")
        live = LiveSearch(self.search, self._assign, self, self.held.folder, self.context.plan, self.deadline)
        with self.progress.following(self.snapshot):
            execute(live, self.context.settings, self.progress.tick, self.progress.log)

    def _close(self) -> dict[str, Any]:
        """Record the search after its last trial; returns the record. Raises `WorkError` if no trial finished."""
        search = self.search
        if search.broken:
            raise WorkError(f"{search.broken}: fix the cause, then continue with `--resume {self.held.run_id}`")
        ended = self._total_spent() if search.open else search.finished
        paused = None if ended else self._paused()
        snapshot = self.snapshot()
        if not front(snapshot.trials, snapshot.objectives):
            raise WorkError(f"no trial finished ({ended or paused}): for the reasons: assay runs --kind trial")
        status = "FINISHED" if ended else "PAUSED"
        record = search_outputs.search_record(
            snapshot, self.context, search, status, str(ended or paused), self._seconds()
        )
        record |= sessions_record(self.tags)
        search_outputs.log_search(snapshot, record, self.context, self.held.folder, search, self.tracker)
        return record

    def _total_spent(self) -> str | None:
        """The reason, if the minutes of the search's budget are over."""
        total = self.context.config.budget.minutes
        return f"budget of {total:g} minutes" if total is not None and self._seconds() >= total * 60 else None

    def _paused(self) -> str:
        """The reason, if the minutes of this session are over. Raises `Interrupted` if the session was stopped."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "the minutes of this session are over; to continue, run the same command"
        done = len(self.search.ended)
        raise Interrupted(
            f"stopped and saved after {done} trials; to continue search {self.held.run_id}, run the same command"
        )

    def snapshot(self) -> SearchSnapshot:
        """The search so far."""
        context, search = self.context, self.search
        budget = context.config.budget
        details = {"time": f"{self._seconds() / 60:.1f} minutes", **search_outputs.page_header(context, self.tags)}
        if budget.trials is not None:
            details["total"] = str(budget.trials)
        clock = None if self.deadline is None else self.deadline - time.monotonic()
        left = search_outputs.seconds_left(search, context.plan.parallel, self._seconds(), clock)
        if left is not None and search.finished is None:
            details["time left"] = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
        run_ids = self.recorder.run_ids
        return take_snapshot(context.name, self.held.run_id, search, details, run_ids, self.curves, self.baseline)

    # --- called by the executor ---

    def _assign(self, trial: Trial) -> TrialAssignment:
        return self.context.assign(self.held, trial, self.search.milestones)

    def started(self, trial: Trial) -> None:
        self.recorder.put(self.context.entry(self.held.folder, trial))

    def ended(self, trial: Trial) -> None:
        """Record it. Keep only the weights of the best, and of a population the states that others may inherit."""
        self.recorder.put(self.context.entry(self.held.folder, trial))
        metric = next(iter(self.search.objectives))
        best = {row.number for row in front([trial_row(t, metric) for t in self.search.trials], self.search.objectives)}
        for number in (self.kept | {trial.number}) - best:
            at = trial_folder(self.held.folder, number)
            (at / WEIGHTS).unlink(missing_ok=True)
            if not self.context.config.inherits:
                shutil.rmtree(at / CHECKPOINTS, ignore_errors=True)
        if self.context.config.inherits:
            self._forget_states()
        self.kept = best

    def _forget_states(self) -> None:
        """Remove the states that no trial starts from any more: the whole population is one interval older."""
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
