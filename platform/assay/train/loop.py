"""The closed training loop: plain torch, any task. It knows no tracker, no scheduler and no task by name.

The state of a run is (epoch, batch, step, weights, optimizers, best weights, open sums); all randomness is a function
of these, so a run that is killed and resumed from any checkpoint ends with the same bits.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.config.experiment import ExperimentConfig
from assay.config.plugin import Headline
from assay.errors import WorkError
from assay.task import Picture, Source, Task
from assay.train.checkpoint import Weights, weights_sha256
from assay.train.context import LocalContext
from assay.train.engine import StepEngine
from assay.train.loader import Loader, evaluation_batches
from assay.train.metrics import Sums, Window, check_finite
from assay.train.pulse import Pulse, Stopped
from assay.train.randomness import key

RECORDS_PER_EPOCH = 5
LONGEST_WINDOW = 50  # steps between two records, at most
PICTURED = 8  # times, at most, that a training draws the pictures of a watched task


@dataclass
class Position:
    """Where a run is, and the best it has seen."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_value: float | None = None
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation
    best_weights: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `weights` are the best by the headline metric on the validation split; see `_keep`."""

    finished: bool
    steps: int
    trained_steps: int
    resumed_from: int | None
    metrics: Mapping[str, float]
    weights: Weights
    weights_sha256: str
    notes: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        """What `outcome.json` holds: all but the weights. There the notes are called `facts`."""
        plain = {**vars(self), "facts": self.notes}
        del plain["weights"], plain["notes"]
        return plain


def train(task: Task, sources: Mapping[str, Source], config: ExperimentConfig, context: LocalContext) -> Outcome:
    """Train to the end, or until a stop is requested; resume from the newest checkpoint if there is one.

    Args:
        sources: the splits `train` and `val`.

    Raises:
        WorkError: a metric became NaN or infinite.
    """
    return Training(task, sources, config, context).run()


class Training:
    """A training under way, from its newest checkpoint if there is one. It advances by epochs, or by parts of one.

    Attributes:
        position: where it is; `position.epoch` counts the finished epochs.
    """

    def __init__(
        self,
        task: Task,
        sources: Mapping[str, Source],
        config: ExperimentConfig,
        context: LocalContext,
        require_data: Callable[[], None] = lambda: None,
    ) -> None:
        """`require_data` is called before each checkpoint; raises if what was read is not what the run is to learn."""
        self.require_data = require_data
        self.task, self.config, self.context, self.val = task, config, context, sources["val"]
        self.loader = _loader(sources["train"], config, context)
        steps = self.loader.steps * config.train.epochs
        context.announce(steps)
        self.engine = StepEngine(task.optimizers, config.train, config.optimizer, context.device, steps)
        self.window = Window(context.device)
        self.position, self.resumed_from = _resume(task, self.engine, self.window, context)
        self.pulse = Pulse(context, config.train.checkpoint_seconds)
        self._first, self._saved = self.position.step, -1

    @property
    def epochs(self) -> float:
        """How many epochs it has trained for."""
        return self.position.step / self.loader.steps

    def run(self, validate_at: Sequence[float] = ()) -> Outcome:
        """Train to the end, or until a stop is requested; `validate` after the given parts of the first epoch."""
        interrupted = False
        for until in (epochs for epochs in validate_at if epochs >= self.epochs):
            interrupted = interrupted or self.advance(until)
            if not interrupted:
                self.validate()
        if not interrupted and not self.advance(self.config.train.epochs):
            self.save()
        return self.outcome()

    def advance(self, until: float) -> bool:
        """Train until this number of epochs is reached; True if a stop interrupted it, after the state was saved.

        Raises:
            WorkError: a metric became NaN or infinite.
        """
        last = math.ceil(until * self.loader.steps - 1e-6)
        while self._goes_on(last):
            if self._epoch(last):
                return self._goes_on(last)
        return False

    def _goes_on(self, last: int) -> bool:
        """Whether there is more to do up to step number `last`: steps, or the evaluation that a stop cut off."""
        return self.position.step < last or self.position.batch == self.loader.steps

    def validate(self) -> dict[str, float]:
        """Evaluate the validation split, also inside an epoch; the training does not change by it. At the end of an
        epoch the metrics are the best so far.

        Raises:
            WorkError: a metric is NaN or infinite.
        """
        position = self.position
        if position.batch == 0:
            return dict(position.best_metrics)
        _synchronize(self.task, self.context)
        metrics, _ = evaluate(self.task, self.val, "val", self.config.train.batch_size, self.context, draw=False)
        check_finite(metrics, position.step)
        self.context.report(position.step, metrics)
        return metrics

    def save(self) -> None:
        """Write a checkpoint of where the training is."""
        step, context = self.position.step, self.context
        if step == self._saved:
            return
        self.require_data()
        check_finite({f"train/{name}": total for name, total in self.window.fold(context).items()}, step)
        _check_weights(self.task, step)
        _save(self.task, self.engine, self.window, self.position, context)
        self._saved = step

    def outcome(self) -> Outcome:
        return _outcome(self.task, self.position, self.config, self._first, self.resumed_from)

    def _epoch(self, last: int) -> bool:
        """Train the rest of an epoch, evaluate it, and save a checkpoint if one is due; stop after step number `last`,
        even inside the epoch. True if the workers agreed to stop.
        """
        position, context = self.position, self.context
        started, first = time.perf_counter(), position.batch
        if self._batches(last):
            return True
        if position.batch < self.loader.steps:
            return False
        if first < position.batch:  # else only the evaluation is left
            seconds = time.perf_counter() - started
            speed = (position.batch - first) * self.loader.batch_size / max(seconds, 1e-9)
            timing = {"time/epoch_seconds": seconds, "time/samples_per_second": speed}
            _record(self.window.take(context), "train", position.step, context)
            context.report(position.step, timing)
        try:
            _evaluate_epoch(self.task, self.val, self.config, context, position)
        except Stopped:
            self.save()
            return True
        context.report(position.step, memory(context.device))
        position.epoch, position.batch = position.epoch + 1, 0
        stop, save = self.pulse.agree()
        if stop or save:
            self.save()
        return stop

    def _batches(self, last: int) -> bool:
        """Train the remaining steps of an epoch, up to number `last`; True if the workers agreed to stop before."""
        position, window, context = self.position, self.window, self.context
        record_every = min(LONGEST_WINDOW, max(1, self.loader.steps // RECORDS_PER_EPOCH))
        self.task.train(True)
        for batch in self.loader.epoch(position.epoch, position.batch):
            seed_step(self.config.seed, position.step, context)
            self.engine.begin(position.step)
            window.add(self.task.train_step(to_device(batch, context.device), self.engine))
            self.engine.end()
            position.batch += 1
            position.step += 1
            if position.step % record_every == 0:
                _record({**window.take(context), **self.engine.loss_scale()}, "train", position.step, context)
            if self.pulse.due() and position.batch < self.loader.steps:  # at the end of an epoch: after the evaluation
                stop, save = self.pulse.agree()
                if stop or save:
                    self.save()
                if stop:
                    return True
            if position.step == last:
                break
        return False


def evaluate(
    task: Task,
    source: Source,
    split: str,
    batch_size: int,
    context: LocalContext,
    draw: bool = True,
    pulse: Pulse | None = None,
) -> tuple[dict[str, float], list[Picture]]:
    """Metrics `<split>/<name>` over every sample of a split, and, if `draw`, the task's pictures of it.

    Args:
        batch_size: of all workers together, as in training.
        pulse: by which the workers hear of a stop.

    Raises:
        Stopped: they agreed to stop.
    """
    task.train(False)
    sums, share = Sums(), math.ceil(batch_size / context.world_size)
    common = math.ceil(len(source) // context.world_size / share)  # batches that every worker has
    with torch.inference_mode():
        batches = evaluation_batches(source, share, context.rank, context.world_size, _ahead(source, context))
        for number, batch in enumerate(batches):
            if pulse is not None and number < common and pulse.due():
                pulse.require_no_stop()
            task.eval_step(to_device(batch, context.device), sums)
        if pulse is not None:
            pulse.require_no_stop()
        if context.rank >= len(source):  # fewer samples than workers: this one has to know what the others add up
            task.eval_step(to_device(source.load(np.zeros(1, np.int64), None), context.device), sums)
            sums.clear()
        means, tables = sums.reduce(context)
        metrics = {f"{split}/{name}": value for name, value in {**means, **task.summarize(tables)}.items()}
        return metrics, list(task.pictures(tables, source)) if draw and context.rank == 0 else []


def seed_step(seed: int, step: int, context: LocalContext) -> None:
    """Seed torch's own generators for dropout and noise. Ten times as fast as `torch.manual_seed` in every step,
    which also queues a call for each kind of device that is not in use.
    """
    number = key(seed, "step", step, context.rank)
    torch.default_generator.manual_seed(number)
    if context.device.type == "cuda":
        torch.cuda.manual_seed(number)


def memory(device: torch.device) -> dict[str, float]:
    """The most memory of this worker so far, in MiB."""
    used = {"system/peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        used["system/peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return used


def _loader(source: Source, config: ExperimentConfig, context: LocalContext) -> Loader:
    return Loader(
        source, config.train.batch_size, config.seed, context.rank, context.world_size, _ahead(source, context)
    )


def _ahead(source: Source, context: LocalContext) -> int:
    """The number of threads that load ahead: 0 if the samples are in memory."""
    return 0 if source.in_memory else context.threads + 1


def to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def _record(means: Mapping[str, float], split: str, step: int, context: LocalContext) -> None:
    metrics = {f"{split}/{name}": value for name, value in means.items()}
    check_finite(metrics, step)
    context.report(step, metrics)


def _evaluate_epoch(
    task: Task, source: Source, config: ExperimentConfig, context: LocalContext, position: Position
) -> None:
    _synchronize(task, context)
    draw = task.watched and _is_pictured(position.epoch, config.train.epochs)
    metrics, pictures = evaluate(task, source, "val", config.train.batch_size, context, draw, Pulse(context))
    for picture in pictures:
        context.keep(position.step, picture)
    check_finite(metrics, position.step)
    rule = config.task.headline
    headline = f"val/{rule.metric}"
    if headline not in metrics:
        raise WorkError(f"the task does not report its headline {headline}; it reports {', '.join(metrics)}")
    kept = _keep(rule, metrics, position, len(source))
    if kept:
        position.best_step, position.best_metrics = position.step, metrics
        position.best_weights = {name: t.detach().cpu().clone() for name, t in task.state_dict().items()}
    position.metrics = metrics
    context.report(position.step, metrics, kept)


def _keep(rule: Headline, metrics: Mapping[str, float], position: Position, samples: int) -> bool:
    """Note the best headline so far; whether the weights with these metrics are kept.

    They are if they are the best. A share of `samples` changes by chance when it changes by one of them: of all weights
    within one sample of the best, those with the lowest loss are kept.
    """
    value = metrics[f"val/{rule.metric}"]
    better = rule.better(value, position.best_value)
    if better:
        position.best_value = value
    if not rule.share:
        return better
    assert position.best_value is not None
    worst = position.best_value - 1 / samples - 1e-9
    kept = position.best_metrics
    rival = bool(kept) and kept[f"val/{rule.metric}"] >= worst
    return value >= worst and (not rival or metrics["val/loss"] <= kept["val/loss"])


def _synchronize(task: Task, context: LocalContext) -> None:
    for module in task.modules.values():
        context.synchronize_buffers(module)


def _is_pictured(epoch: int, epochs: int) -> bool:
    """True for the last of each eighth of the epochs."""
    return (epoch + 1) * PICTURED // epochs > epoch * PICTURED // epochs


def _check_weights(task: Task, step: int) -> None:
    """Refuse to save weights that are not finite; all workers have the same parameters and refuse together."""
    groups = (group for optimizer in task.optimizers.values() for group in optimizer.param_groups)
    if not all(torch.isfinite(parameter).all() for group in groups for parameter in group["params"]):
        check_finite({"a weight": math.nan}, step)


def _save(task: Task, engine: StepEngine, window: Window, position: Position, context: LocalContext) -> None:
    if context.rank:
        return
    context.flush()
    state = {"weights": task.state_dict(), "engine": engine.state_dict(), "best": position.best_weights}
    plain = {name: value for name, value in vars(position).items() if name != "best_weights"}
    context.checkpoints.save(position.step, {**state, "position": plain, "window": window.state()})


def _resume(task: Task, engine: StepEngine, window: Window, context: LocalContext) -> tuple[Position, int | None]:
    found = context.checkpoints.load(context)
    if found is None:
        return Position(), None
    step, state = found
    task.load_state_dict(state["weights"])
    engine.load_state_dict(state["engine"])
    window.restore(state["window"], context.rank)
    return Position(**state["position"], best_weights=state["best"]), step


def _outcome(task: Task, position: Position, config: ExperimentConfig, first: int, resumed_from: int | None) -> Outcome:
    parameters = sum(p.numel() for module in task.modules.values() for p in module.parameters())
    return Outcome(
        finished=position.epoch == config.train.epochs,
        steps=position.step,
        trained_steps=position.step - first,
        resumed_from=resumed_from,
        metrics=position.best_metrics,
        weights=position.best_weights,
        weights_sha256=weights_sha256(position.best_weights),
        notes={"parameters": str(parameters), **task.notes},
    )
