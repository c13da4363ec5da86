"""A search as a state machine: what was tried, what is to be tried next, and when it ends.

It knows no Ray, no clock and no network. Every change is an event; the same events in the same order make the same
state, the sampler's included, so a search that was killed goes on from its journal as if nothing had been.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from assay.config.experiment import ExperimentConfig, value_at
from assay.config.search import SearchConfig
from assay.errors import InputError
from assay.train.randomness import key
from assay.tune.algorithms import Proposal, Scores, Setting, make
from assay.tune.journal import Event, Journal
from assay.tune.rungs import Rungs, rungs
from assay.tune.space import Space, Values, identity

FAILURES_IN_A_ROW = 5
OVER_IN_A_ROW = 200  # networks over the limits before the limits are taken to leave nothing
LIVES = 3  # of a trial whose worker dies
SAME_AGAIN = 20  # suggestions that were tried before, after which one is drawn that was not
SAMPLES = 100  # random points that are tried before all that are left are listed
ENDED = ("finished", "stopped", "failed", "over")


@dataclass
class Trial:
    """One configuration and how it went.

    Attributes:
        ticket: its number at the algorithm.
        parent: the number of the trial whose weights it starts from.
        epochs: where it ends, counted from the beginning of its line of parents.
        status: waiting, running, or one of `ENDED`: `over` is a network over the limits, which was not trained.
        curve: (epoch, metrics) as reported; epoch 0 holds what the network costs.
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
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> float:
        """Epochs that it was trained for, those of its parents included."""
        return max((epoch for epoch, _ in self.curve), default=0)

    @property
    def costs(self) -> dict[str, float]:
        """What its network costs, where that was asked."""
        return next((dict(metrics) for epoch, metrics in self.curve if epoch == 0), {})


class Search:
    """A search under way. With a journal, it begins where the journal ends.

    Raises:
        InputError: the algorithm cannot take the space, or the journal is not of this search.
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
        self.tickets: dict[int, int] = {}  # of the algorithm: to trial numbers
        self._next_ticket = 0
        self._known: dict[str, int] = {}  # points to trial numbers
        self.repeated = 0  # trials that were trained again though they had ended
        self._order: list[int] = []  # the numbers of the ended trials as they ended
        self._exhausted = False
        self._journal: Journal | None = None
        for event in journal.events if journal else ():
            self._replay(event)
        self._session = len(self._order)
        self._journal = journal

    # --- what a runner calls ---

    def next(self) -> Trial | None:
        """The trial to start now: one that waits, else a new one; None if there is none (now, or ever: `over`)."""
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
        """How a running trial stands; True where it must end now. What was reported before is not heard again."""
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
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """A trial ended. `status` is one of `ENDED`."""
        trial = self.trials[number]
        plain: dict[str, Any] = {
            "status": status, "metrics": dict(metrics or {}), "reason": reason or trial.reason,
            "seconds": round(seconds, 3), "facts": dict(facts or {}),
        }  # fmt: skip
        self._ended(trial, **plain)
        self._note("end", trial=number, **plain)
        if self._journal:
            self._journal.sync()

    def died(self, number: int, reason: str) -> bool:
        """A trial's worker died; True where the trial is tried again, from its last checkpoint."""
        trial = self.trials[number]
        trial.deaths += 1
        self._note("death", trial=number, reason=reason)
        if trial.deaths < LIVES:
            trial.status = "waiting"
            return True
        self.end(number, "failed", reason=f"its worker died {LIVES} times; the last time: {reason}")
        return False

    def release(self, number: int) -> None:
        """A running trial was interrupted: it waits for the next session."""
        self.trials[number].status = "waiting"

    # --- what everyone may ask ---

    @property
    def running(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.status == "running"]

    @property
    def open(self) -> bool:
        """Whether trials that were begun have not come to their end."""
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
        """Why no more trials are begun; None while there are more."""
        budget = self.config.budget
        if budget.trials is not None and len(self.counted) >= budget.trials:
            return f"budget of {budget.trials} trials"
        if budget.epochs is not None and self.epochs_trained >= budget.epochs:
            return f"budget of {budget.epochs} epochs"
        population = self.config.sampler == "pbt"
        done = "every member was trained to its end" if population else "every configuration of the space was tried"
        return self.broken or (done if self._exhausted and self.ended else None)

    @property
    def continues(self) -> bool:
        """Whether trials to come could start from the weights of those that ended."""
        return self.config.sampler == "pbt" and not self._exhausted

    @property
    def broken(self) -> str | None:
        """Why the search cannot go on; None if it can. What failed before this session may have been mended since."""
        last = [self.trials[number] for number in self._order[self._session :][-OVER_IN_A_ROW:]]
        failed = [trial for trial in last[-FAILURES_IN_A_ROW:] if trial.status == "failed"]
        if len(failed) == FAILURES_IN_A_ROW:
            return f"{FAILURES_IN_A_ROW} trials in a row failed; the last: {failed[-1].reason}"
        if len(last) >= OVER_IN_A_ROW and all(trial.status == "over" for trial in last[-OVER_IN_A_ROW:]):
            return f"{OVER_IN_A_ROW} networks in a row were over the limits; the last: {last[-1].reason}"
        return None

    @property
    def epochs_trained(self) -> float:
        """By all trials together; a trial that began with its parent's weights counts from there."""
        return sum(
            max(0, t.trained - (self.trials[t.parent].trained if t.parent is not None else 0)) for t in self.trials
        )

    @property
    def milestones(self) -> tuple[float, ...]:
        """The epochs, and parts of one, after which a trial must report before it goes on."""
        return rungs(self.config, self.epochs) if self.rungs else ()

    def scores(self, metrics: Mapping[str, float]) -> Scores:
        """The objectives, larger is better."""
        return tuple(metrics[name] * (1 if way == "max" else -1) for name, way in self.objectives.items())

    def whole(self, values: Values) -> int:
        """The epochs of a whole training with these values."""
        return int(values.get("train.epochs", self.epochs))

    def suggestions(self, count: int) -> list[Values]:
        """What the algorithm would suggest next, the budget aside. It uses the search up: ask it of a copy."""
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
        """The algorithm's next proposal that was not tried before: a training repeated would say the same again."""
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
            told = self._told(twin.status, twin.metrics)
            self.algorithm.tell(self._next_ticket - 1, told, twin.status == "stopped")
        self._exhausted = True
        return None

    def _givens(self) -> Iterator[Values | None]:
        """First what the algorithm likes; after a while points that were not tried yet, while there are any."""
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
        known = {**trial.costs, **metrics}
        if any(name not in known for name in self.objectives):
            return
        scores = self.scores(known)
        if len(scores) == 1:
            self.algorithm.report(trial.ticket, epoch, scores[0])
        if self.rungs and epoch < trial.epochs and self.rungs.stops(trial.number, epoch, scores):
            trial.reason = f"stopped by {self.config.scheduling} after {epoch:.4g} of {trial.epochs} epochs"

    def _over(self, costs: Mapping[str, float]) -> str:
        for name, most in self.config.limits.items():
            if costs[name] > most:
                return f"{name} {costs[name]:g} is over the limit of {most:g}"
        return ""

    def _ended(
        self,
        trial: Trial,
        status: str,
        metrics: Mapping[str, float],
        reason: str,
        seconds: float,
        facts: Mapping[str, Any],
    ) -> None:
        trial.status, trial.reason, trial.seconds, trial.facts = status, reason, seconds, dict(facts)
        trial.metrics = dict(metrics)
        self.algorithm.tell(trial.ticket, self._told(status, metrics), status == "stopped")
        if self.rungs:
            self.rungs.end(trial.number)
        self._order.append(trial.number)

    def _told(self, status: str, metrics: Mapping[str, float]) -> Scores | None:
        """What the algorithm hears of a trial; one without a finite score is as one that failed."""
        if status not in ("finished", "stopped"):
            return None
        scores = self.scores(metrics)
        return scores if all(map(math.isfinite, scores)) else None

    def _replay(self, event: Event) -> None:
        kind = event["event"]
        if kind == "ask":
            trial = self._ask()
            if trial is None or not _alike(trial.values, event["values"]):
                raise InputError(
                    f"trial {event['trial']} of the journal was {event['values']}, and the algorithm now suggests "
                    f"{trial.values if trial else 'nothing'}: Assay or Optuna have changed since; install the versions "
                    "that the search began with, or start anew with --new"
                )
        elif kind == "report":
            self._reported(self.trials[event["trial"]], event["epoch"], event["metrics"])
        elif kind == "death":
            self.trials[event["trial"]].deaths += 1
        elif kind == "end":
            facts = {name: event[name] for name in ("status", "metrics", "reason", "seconds", "facts")}
            self._ended(self.trials[event["trial"]], **facts)

    def _note(self, event: str, **facts: Any) -> None:
        if self._journal:
            self._journal.append(event, **facts)


def _alike(suggested: Values, recorded: Values) -> bool:
    """Equal but for the last bits of a float, which another kind of processor may round otherwise."""
    return suggested.keys() == recorded.keys() and all(
        abs(value - recorded[name]) <= 1e-9 * abs(value)
        if isinstance(value, float) and isinstance(recorded[name], float)
        else value == recorded[name]
        for name, value in suggested.items()
    )
