"""A search as a state machine: what was tried, what to try next, and when it ends.

It knows no Ray, no clock and no network. Every change is an event; the same events in the same order lead to the same
state, that of the sampler included, so a search that was killed continues from its journal as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from assay.config.experiment import ExperimentConfig, value_at
from assay.config.search import SearchConfig
from assay.errors import InputError
from assay.fronts import Scores, gains
from assay.train.randomness import key
from assay.tune.algorithms import Proposal, Setting, make
from assay.tune.journal import Event, Journal
from assay.tune.rungs import Rungs, rungs
from assay.tune.space import Space, Values, identity

FAILURES_IN_A_ROW = 5
OVER_IN_A_ROW = 200  # networks over the limits, after which the limits are taken to exclude everything
LIVES = 3  # deaths of a trial's worker without progress between them
SAME_AGAIN = 20  # known suggestions in a row, after which an unknown one is drawn
SAMPLES = 100  # random points drawn before the remaining ones are listed
ENDED = ("finished", "stopped", "failed", "over")


@dataclass
class Trial:
    """One configuration and how it went.

    Attributes:
        ticket: its number for the algorithm.
        parent: the number of the trial whose weights it starts from.
        epochs: where it ends, counted from the beginning of its line of parents.
        status: waiting, running, or one of `ENDED`: `over` is a network over the limits, which was not trained.
        curve: (epoch, metrics) as reported; epoch 0 holds the costs of the network.
        deaths: of its worker, since the last progress beyond `reached`.
        outcome: of a finished training: `weights_sha256`, `steps`, and what its task reports (`task`).
    """

    number: int
    ticket: int
    values: Values
    parent: int | None
    epochs: int
    status: str = "waiting"
    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0
    deaths: int = 0
    reached: int = 0
    outcome: dict[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> float:
        """Epochs it was trained for, including those of its parents."""
        return max((epoch for epoch, _ in self.curve), default=0)

    @property
    def costs(self) -> dict[str, float]:
        """The costs of its network, if they were measured."""
        return next((dict(metrics) for epoch, metrics in self.curve if epoch == 0), {})


class Search:
    """A search under way. With a journal, it begins where the journal ends.

    Raises:
        InputError: the algorithm cannot search the space, or the journal does not fit the search.
    """

    def __init__(
        self, config: SearchConfig, space: Space, experiment: ExperimentConfig, journal: Journal | None = None
    ) -> None:
        self.config = config
        self.space = space
        self.epochs = experiment.train.epochs
        headline = experiment.task.headline
        self.objectives = dict(config.objectives) or {f"val/{headline.metric}": "max" if headline.maximize else "min"}
        start = {p.key: value for p in space.parameters if (value := value_at(experiment, p.key)) is not None}
        setting = Setting(config, space, self.epochs, len(self.objectives), start)
        self.algorithm = make(setting)
        self.rungs = Rungs(config, self.epochs, len(self.objectives)) if config.scheduling else None
        self.trials: list[Trial] = []
        self.tickets: dict[int, int] = {}  # trial numbers by ticket
        self._next_ticket = 0
        self._known: dict[str, int] = {}  # trial numbers by point
        self.repeated = 0  # trials that were trained again although they had ended
        self._order: list[int] = []  # the numbers of the ended trials as they ended
        self._exhausted = False
        self._journal: Journal | None = None
        for event in journal.events if journal else ():
            self._replay(event)
        self._session = len(self._order)
        self._journal = journal

    # --- called by the executor ---

    def next(self) -> Trial | None:
        """The trial to start now: one that waits, else a new one; None if there is none now (or ever: `finished`)."""
        waiting = next((trial for trial in self.trials if trial.status == "waiting"), None)
        if waiting is None:
            if self.finished is not None or (waiting := self._ask()) is None:
                return None
            self._note(
                "ask", trial=waiting.number, values=dict(waiting.values), parent=waiting.parent, epochs=waiting.epochs
            )
        waiting.status = "running"
        return waiting

    def report(self, number: int, epoch: float, metrics: Mapping[str, float]) -> bool:
        """Take a report of a running trial; True if it must end now. An epoch counts only once."""
        trial = self.trials[number]
        if epoch in (known for known, _ in trial.curve):
            return trial.reason != ""
        self._reported(trial, epoch, metrics)
        self._note("report", trial=number, epoch=epoch, metrics=dict(metrics))
        return trial.reason != ""

    def end(
        self,
        number: int,
        status: str,
        metrics: Mapping[str, float] | None = None,
        reason: str = "",
        seconds: float = 0.0,
        outcome: Mapping[str, Any] | None = None,
    ) -> None:
        """End a trial. `status` is one of `ENDED`."""
        trial = self.trials[number]
        plain: dict[str, Any] = {
            "status": status, "metrics": dict(metrics or {}), "reason": reason or trial.reason,
            "seconds": round(seconds, 3), "facts": dict(outcome or {}),
        }  # fmt: skip
        self._end(trial, plain)
        self._note("end", trial=number, **plain)
        if self._journal:
            self._journal.sync()

    def died(self, number: int, reason: str, reached: int = 0) -> bool:
        """Record the death of a trial's worker; True if the trial is tried again, from its last checkpoint.

        Args:
            reached: how far the trial is, in a number that grows: deaths count since the last progress.
        """
        trial = self.trials[number]
        _died(trial, reached)
        self._note("death", trial=number, reason=reason, reached=reached)
        if trial.deaths < LIVES:
            trial.status = "waiting"
            return True
        why = f"its worker died {LIVES} times without progress; the last time: {reason}"
        self.end(number, "failed", reason=why)
        return False

    def release(self, number: int) -> None:
        """Let a running trial that was interrupted wait for the next session."""
        self.trials[number].status = "waiting"

    # --- open to all ---

    @property
    def running(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.status == "running"]

    @property
    def open(self) -> bool:
        """Whether trials have begun and not ended."""
        return len(self.ended) < len(self.trials)

    @property
    def ended(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.status in ENDED]

    @property
    def counted(self) -> list[Trial]:
        """The trials that the budget counts: all but networks over the limits."""
        return [trial for trial in self.trials if trial.status != "over"]

    @property
    def finished(self) -> str | None:
        """Why no more trials begin; None while there are more."""
        budget = self.config.budget
        if budget.trials is not None and len(self.counted) >= budget.trials:
            return f"budget of {budget.trials} trials"
        if budget.epochs is not None and self.epochs_trained >= budget.epochs:
            return f"budget of {budget.epochs} epochs"
        done = (
            "every member was trained to its end"
            if self.config.inherits
            else "every configuration of the space was tried"
        )
        return self.broken or (done if self._exhausted and self.ended else None)

    @property
    def continues(self) -> bool:
        """Whether trials to come could start from the weights of those that ended."""
        return self.config.inherits and not self._exhausted

    @property
    def broken(self) -> str | None:
        """Why the search cannot continue; None if it can. Earlier sessions' failures may be fixed."""
        last = [self.trials[number] for number in self._order[self._session :][-OVER_IN_A_ROW:]]
        failed = [trial for trial in last[-FAILURES_IN_A_ROW:] if trial.status == "failed"]
        if len(failed) == FAILURES_IN_A_ROW:
            return f"{FAILURES_IN_A_ROW} trials in a row failed; the last: {failed[-1].reason}"
        if len(last) >= OVER_IN_A_ROW and all(trial.status == "over" for trial in last[-OVER_IN_A_ROW:]):
            return f"{OVER_IN_A_ROW} networks in a row were over the limits; the last: {last[-1].reason}"
        return None

    @property
    def epochs_trained(self) -> float:
        """Epochs trained by all trials together; one that began with its parent's weights counts from there."""
        return sum(
            max(0, t.trained - (self.trials[t.parent].trained if t.parent is not None else 0)) for t in self.trials
        )

    @property
    def milestones(self) -> tuple[float, ...]:
        """The epochs, and parts of one, after which a trial must report before it continues."""
        return rungs(self.config, self.epochs) if self.rungs else ()

    def whole(self, values: Values) -> int:
        """The epochs of a complete training with these values."""
        return int(values.get("train.epochs", self.epochs))

    def suggestions(self, count: int) -> list[Values]:
        """The next suggestions of the algorithm, whatever the budget. They use up the search: call it on a copy."""
        found: list[Values] = []
        while len(found) < count and (trial := self._ask()) is not None:
            found.append(trial.values)
        return found

    # --- how events change the state ---

    def _ask(self) -> Trial | None:
        proposal = self._propose()
        if proposal is None:
            return None
        ticket, number = self._next_ticket - 1, len(self.trials)
        parent = None if proposal.parent is None else self.tickets[proposal.parent]
        epochs = proposal.epochs or self.whole(proposal.values)
        trial = Trial(number, ticket, proposal.values, parent, epochs)
        self.trials.append(trial)
        self.tickets[ticket] = number
        if proposal.epochs is None:
            self._known[identity(proposal.values)] = number
        if self.rungs:
            self.rungs.begin(number)
        return trial

    def _propose(self) -> Proposal | None:
        """The algorithm's next proposal that is new: a repeated training would have the same result."""
        for given in self._givens():
            proposal = self.algorithm.ask(self._next_ticket, given)
            if proposal is None:
                self._exhausted = not self.running
                return None
            self._next_ticket += 1
            same = self._known.get(identity(proposal.values)) if proposal.epochs is None else None
            if same is None:
                return proposal
            twin = self.trials[same]
            scores = self._scores(twin.status, twin.metrics)
            self.algorithm.tell(self._next_ticket - 1, scores, twin.status == "stopped")
        self._exhausted = True
        return None

    def _givens(self) -> Iterator[Values | None]:
        """First the choice of the algorithm; after a while points that were not tried yet, if any are left."""
        yield from [None] * SAME_AGAIN
        random = np.random.default_rng(key(self.config.seed, "fresh", self._next_ticket))
        for _ in range(SAMPLES):
            if identity(point := self.space.sample(random)) not in self._known:
                yield point
                return
        if self.space.size is not None:
            left = [point for point in self.space.points() if identity(point) not in self._known]
            yield from (left[i] for i in random.permutation(len(left))[:1])

    def _reported(self, trial: Trial, epoch: float, metrics: Mapping[str, float]) -> None:
        trial.curve.append((epoch, dict(metrics)))
        if epoch == 0:
            trial.reason = self._over(metrics)
            return
        scores = gains({**trial.costs, **metrics}, self.objectives)
        if scores is None:
            return
        if len(scores) == 1:
            self.algorithm.report(trial.ticket, epoch, scores[0])
        if self.rungs and epoch < trial.epochs and self.rungs.stops(trial.number, epoch, scores):
            trial.reason = f"stopped by {self.config.scheduling} after {epoch:.4g} of {trial.epochs} epochs"

    def _over(self, costs: Mapping[str, float]) -> str:
        for name, most in self.config.limits.items():
            if costs[name] > most:
                return f"{name} {costs[name]:g} is over the limit of {most:g}"
        return ""

    def _end(self, trial: Trial, event: Mapping[str, Any]) -> None:
        """Apply an `end` event of the journal, in which the outcome is called `facts`."""
        trial.status, trial.reason, trial.seconds = event["status"], event["reason"], event["seconds"]
        trial.metrics, trial.outcome = dict(event["metrics"]), dict(event["facts"])
        self.algorithm.tell(trial.ticket, self._scores(trial.status, trial.metrics), trial.status == "stopped")
        if self.rungs:
            self.rungs.end(trial.number)
        self._order.append(trial.number)

    def _scores(self, status: str, metrics: Mapping[str, float]) -> Scores | None:
        """The scores of an ended trial for the algorithm; None if it failed or lacks one."""
        return gains(metrics, self.objectives) if status in ("finished", "stopped") else None

    def _replay(self, event: Event) -> None:
        kind = event["event"]
        if kind == "ask":
            trial = self._ask()
            if trial is None or not _alike(trial.values, event["values"]):
                raise InputError(
                    f"trial {event['trial']} of the journal was {event['values']}, but the algorithm now suggests "
                    f"{trial.values if trial else 'nothing'}: Assay or Optuna has changed since; install the versions "
                    "that the search began with, or start again with --new"
                )
        elif kind == "report":
            self._reported(self.trials[event["trial"]], event["epoch"], event["metrics"])
        elif kind == "death":
            _died(self.trials[event["trial"]], event.get("reached", 0))
        elif kind == "end":
            self._end(self.trials[event["trial"]], event)

    def _note(self, event: str, **fields: Any) -> None:
        if self._journal:
            self._journal.append(event, **fields)


def _died(trial: Trial, reached: int) -> None:
    trial.deaths = 1 if reached > trial.reached else trial.deaths + 1
    trial.reached = max(reached, trial.reached)


def _alike(suggested: Values, recorded: Values) -> bool:
    """Equal except for the last bits of a float, which another kind of processor may round differently."""
    return suggested.keys() == recorded.keys() and all(
        abs(value - recorded[name]) <= 1e-9 * abs(value)
        if isinstance(value, float) and isinstance(recorded[name], float)
        else value == recorded[name]
        for name, value in suggested.items()
    )
