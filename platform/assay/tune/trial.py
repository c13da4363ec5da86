"""Runs in a slot of a search: one trial after the other, in an actor that is reused for the next.

A trial advances from decision to decision and trains without a pause between two. A failure inside it is a report like
any other, so the actor lives on; only a worker that dies takes its actor with it.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from assay.errors import Interrupted, WorkError
from assay.files import read_json, write_json
from assay.sealed import Line
from assay.train.checkpoint import weights_sha256
from assay.train.context import LocalContext
from assay.train.folder import CHECKPOINTS, FAILURE, LOG, OUTCOME, OUTCOME_NEEDS, SPOOL, STEPS, STOP, read_steps
from assay.train.loop import Training
from assay.train.prepare import prepare
from assay.train.spool import read_spool
from assay.workers.arrive import arrive, require_inputs
from assay.workers.assignment import Assignment
from assay.workers.launch import deaths_of, train_on_ray
from assay.workers.on_ray import raise_recorded
from assay.workers.plan import Plan
from assay.workers.starts import note_start
from assay.workers.worker import failure_of

WEIGHTS = "model.safetensors"
POLL_SECONDS = 0.05
CLOSE_SECONDS = 60.0  # in which the workers of a trial that ends early have to save


@dataclass(frozen=True)
class TrialAssignment:
    """A trial as plain data.

    Attributes:
        training: an `Assignment` as plain data; its folder is the trial's.
        until: the epochs after which it ends.
        milestones: earlier epochs, or parts of one, after which it reports and may be stopped.
        parent: the folder of the trial whose last weights and optimizer it starts from.
        costs: whether it reports the costs of its network first.
        workers: 0 or 1 trains in the actor, more on Ray Train.
        keep: whether its last state is kept, for others to start from, instead of its best one.
    """

    training: Mapping[str, Any]
    number: int
    until: int
    milestones: tuple[float, ...] = ()
    parent: str | None = None
    costs: bool = False
    workers: int = 0
    device: str = "cpu"
    keep: bool = False

    @property
    def folder(self) -> Path:
        return Path(self.training["folder"])

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class Runner(Protocol):
    """A trial under way. Each `advance` returns a report: `epoch`, `metrics`, and `done` at the last, whose metrics and
    `weights_sha256` are those of the weights that it leaves in its folder.

    The last is `interrupted` if a stop ended the trial early: it is to be resumed.
    """

    def advance(self) -> dict[str, Any]: ...

    def close(self) -> None:
        """Leave nothing running. Called once, at any point of the trial."""


def begin(plain: Mapping[str, Any]) -> Runner:
    """The runner of a trial. Nothing heavy happens before its first `advance`."""
    assignment = TrialAssignment(**{**plain, "milestones": tuple(plain["milestones"])})
    kind = OnRayTrain if assignment.workers > 1 else Here
    return Guarded(kind(assignment), assignment.folder)


class Guarded:
    """Turns what a trial raises into its last report, and leaves the traceback in the trial's folder."""

    def __init__(self, runner: Runner, folder: Path) -> None:
        self.runner = runner
        self.folder = folder
        self.started = time.monotonic()

    def advance(self) -> dict[str, Any]:
        try:
            report = self.runner.advance()
        except Exception as error:
            failure = failure_of(error, self.folder)
            with suppress(OSError):  # the disk may be what failed
                write_json(self.folder / FAILURE, failure)
            report = {"done": True, "failure": failure["message"][:2000]}
        return {"done": False, **report, "seconds": time.monotonic() - self.started}

    def close(self) -> None:
        with suppress(Exception):
            self.runner.close()


class Here:
    """Trains in this process."""

    def __init__(self, assignment: TrialAssignment) -> None:
        self.assignment = assignment
        self.training: Training | None = None
        self.inherited = ""
        self.reported = 0.0  # the milestone of the last report

    def advance(self) -> dict[str, Any]:
        if self.training is None:
            self.training = self._begin()
            if self.assignment.costs:
                return {"epoch": 0, "metrics": costs_of(self.training)}
        target = self._next(self.training.epochs)
        if self.training.advance(target):
            return {"done": True, "interrupted": True}
        self.reported = target
        report = {"epoch": target, "metrics": self.training.validate()}
        return self._finish(self.training, report) if target == self.assignment.until else report

    def _next(self, trained: float) -> float:
        """The next milestone. One that a resumed training has just reached is reported again: that may be lost."""
        ahead = (epoch for epoch in self.assignment.milestones if epoch > self.reported and epoch >= trained)
        return min(ahead, default=self.assignment.until)

    def _begin(self) -> Training:
        own = Assignment(**self.assignment.training)
        device = torch.device("cuda" if own.gpu else "cpu")
        self.context = LocalContext(Path(own.folder), device, own.threads, compiled=own.compiled)
        if self.assignment.parent is not None:
            self.context.checkpoints.inherit(Path(self.assignment.parent) / CHECKPOINTS)
        here = arrive(own, self.context.log)
        training = prepare(here.config, here.dataset, self.context)
        require_inputs(own, here.config)
        note_start(self.context.folder, own.session, training.position.step, own.gpu)
        if self.assignment.parent is not None:
            self.inherited = weights_sha256(training.task.state_dict())
        return training

    def _finish(self, training: Training, report: dict[str, Any]) -> dict[str, Any]:
        from safetensors.torch import save_file

        outcome = training.outcome()
        weights = outcome.weights
        if self.assignment.keep:  # others continue from the last state, so it is judged, reported and kept
            training.save()
            report["metrics"], weights = dict(training.position.metrics), training.task.state_dict()
        self.context.close()
        weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
        save_file(weights, self.assignment.folder / WEIGHTS)
        found = {"weights_sha256": weights_sha256(weights), "steps": outcome.steps, "task": dict(outcome.notes)}
        found |= {"inherited_sha256": self.inherited} if self.inherited else {}
        return {**report, "done": True, "outcome": found}

    def close(self) -> None:
        if self.training is not None:
            self.context.close()
        self.training = None


class OnRayTrain:
    """Trains on several workers, on Ray Train; its epochs are read from the spool as they end."""

    def __init__(self, assignment: TrialAssignment) -> None:
        from assay.config.experiment import parse_experiment

        self.assignment = assignment
        validate_at = tuple(epoch for epoch in assignment.milestones if epoch < 1)
        self.own = Assignment(**{**assignment.training, "validate_at": validate_at})
        self.folder = Path(self.own.folder)
        self.config = parse_experiment(self.own.config, "config")
        self.costs = assignment.costs
        self.epoch, self.reported, self.offset = 0.0, 0.0, 0
        self.steps: int | None = None  # written before the first metric
        self.best: dict[str, float] = {}  # of whole epochs
        self.latest: dict[str, float] = {}
        self.failure: list[BaseException] = []
        self.thread: threading.Thread | None = None

    def advance(self) -> dict[str, Any]:
        if self.costs:
            self.costs = False
            context = LocalContext(self.folder, torch.device("cpu"), self.own.threads)
            here = arrive(self.own, context.log)
            return {"epoch": 0, "metrics": costs_of(prepare(here.config, here.dataset, context))}
        if self.thread is None:
            self._start()
        assert self.thread is not None
        target = min((epoch for epoch in self.assignment.milestones if epoch > self.reported), default=0)
        while True:
            alive = self.thread.is_alive()  # before the spool is read: a training may end in between
            if target and self._reached(target):
                self.reported = target
                return {"epoch": target, "metrics": dict(self.best or self.latest)}
            if not alive:
                return self._end()
            time.sleep(POLL_SECONDS)

    def _start(self) -> None:
        plan = Plan(self.assignment.workers, self.assignment.device, self.own.threads, self.own.compiled)

        def body() -> None:
            try:
                train_on_ray(self.own, plan, self.folder.parent, self._log, deaths_of(self.folder), threading.Event())
            except BaseException as error:  # raised by `_end`
                self.failure.append(error)

        self.thread = threading.Thread(target=body, name="training", daemon=True)
        self.thread.start()

    def _log(self, line: str) -> None:
        with (self.folder / LOG).open("a") as file:
            file.write(line + "\n")

    def _reached(self, target: float) -> bool:
        """Read on in the spool, evaluation by evaluation, up to that of epoch `target`."""
        if self.epoch >= target:
            return True
        if not (self.folder / SPOOL).exists():
            return False
        name = f"val/{self.config.task.headline.metric}"
        self.steps = self.steps or read_steps(self.folder)
        if self.steps is None:
            raise WorkError(f"{self.folder / STEPS} is damaged: search again with --new")
        for record, end in read_spool(self.folder / SPOOL, self.offset, self._damaged):
            self.offset = end
            if name in record.metrics:
                self.epoch = epochs_at(record.step, self.steps, self.config.train.epochs)
                self.latest = {key: value for key, value in record.metrics.items() if key.startswith("val/")}
                if record.kept:
                    self.best = self.latest
            if self.epoch >= target:
                return True
        return False

    def _damaged(self, line: Line) -> None:
        """What it is judged by may have been in that line."""
        raise WorkError(f"{self.folder / SPOOL} is damaged before byte {line.end}: search again with --new")

    def _end(self) -> dict[str, Any]:
        if self.failure and isinstance(self.failure[0], Interrupted):  # between two attempts
            return {"done": True, "interrupted": True}
        if self.failure:
            raise_recorded(self.failure[0], self.folder)
        outcome = read_json(self.folder / OUTCOME, "the trial is tried again", OUTCOME_NEEDS)
        if not outcome["finished"]:
            return {"done": True, "interrupted": True}
        newest = max((self.folder / CHECKPOINTS).glob("step-*"))
        shutil.copyfile(newest / "best.safetensors", self.folder / WEIGHTS)
        found = {"weights_sha256": outcome["weights_sha256"], "steps": outcome["steps"], "task": outcome["facts"]}
        return {"done": True, "epoch": self.assignment.until, "metrics": outcome["metrics"], "outcome": found}

    def close(self) -> None:
        if self.thread is not None and self.thread.is_alive():
            (self.folder / STOP).touch()
            self.thread.join(CLOSE_SECONDS)


def epochs_at(step: int, steps: int, epochs: int) -> float:
    """How many epochs a training of `steps` and `epochs` has behind it at a step; whole numbers exactly."""
    done = step * epochs / steps
    return round(done) if abs(done - round(done)) < 1e-9 else done


def costs_of(training: Training) -> dict[str, float]:
    """The costs of the network of a training, as metrics `cost/…`."""
    from assay.config.plugin import load_serving
    from assay.networks.costs import task_costs

    return task_costs(training.task, load_serving(training.config.task.name)).metrics


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial of the search in `folder` keeps its spool, checkpoints and weights."""
    return folder / "trials" / f"{number:04d}"
