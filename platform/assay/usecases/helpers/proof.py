"""What a model must show before it is registered: its recorded figures, and the same answers once it is exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.config.experiment import ExperimentConfig
from assay.config.plugin import load_serving, load_task
from assay.data.dataset import Dataset
from assay.errors import WorkError

if TYPE_CHECKING:
    from assay.task import Source, Task

Program = Callable[[NDArray[Any]], Any]
"""An exported model, loaded again: one array in, one array out."""

SAMPLES = 128
"""How many test samples the program answers, at most; which ones of a larger split, follows from its length alone."""
MEASURED = 512
"""Up to that many test samples, the headline metric is measured again."""
CLOSE = 1e-3
"""How far two numbers of one answer may differ, absolutely or relatively; of whole numbers, 1. Arithmetic in another
order changes single precision by far less."""
ODD = 0.01
"""The share of samples whose answers may differ: two boxes or classes of almost the same score may change places."""
OFF = 0.01
"""How far the headline metric may be from the recorded one, absolutely or relatively: on one machine it is equal."""


def prove(
    program: Program,
    task: Task,
    config: ExperimentConfig,
    dataset: Dataset,
    recorded: Mapping[str, float],
    folder: Path,
) -> None:
    """Compare an exported program with the trained task, and the task with what was recorded of it, on test samples.

    Args:
        dataset: the version that the task was trained on.
        recorded: its metrics; without the headline on the test split, only the answers are compared.
        folder: for what an evaluation may write.

    Raises:
        WorkError: the figures or the answers differ.
    """
    import torch

    source = load_task(config.task.name)[1](config.task, dataset, "test")
    with torch.no_grad():
        if len(source) <= MEASURED:
            _compare_headline(task, source, config, recorded, folder)
        _compare_answers(program, task, source, config)


def _compare_headline(
    task: Task, source: Source, config: ExperimentConfig, recorded: Mapping[str, float], folder: Path
) -> None:
    import torch

    from assay.train.context import LocalContext
    from assay.train.loop import evaluate

    name = f"test/{config.task.headline.metric}"
    value = recorded.get(name)
    if value is None:  # the gate says so
        return
    context = LocalContext(folder, torch.device("cpu"), torch.get_num_threads())
    found = evaluate(task, source, "test", config.train.batch_size, context, draw=False)[0][name]
    close = abs(found - value) <= OFF * max(1.0, abs(value))
    if not close and repr(found) != repr(value):  # as two NaN are
        raise WorkError(
            f"{name} of the trained network is {found:.4f} now, but {value:.4f} was recorded: it was not registered; "
            "evaluate it on this machine, or train it again with --new"
        )


def _compare_answers(program: Program, task: Task, source: Source, config: ExperimentConfig) -> None:
    task.train(False)
    count = differing = 0
    for question, expected in load_serving(config.task.name).answered(task, source, _chosen(len(source))):
        count += 1
        differing += not agree(np.asarray(program(question)), expected)
    if differing > ODD * count:
        raise WorkError(
            f"the exported model answers {differing} of {count} test samples otherwise than the trained one: "
            "it was not registered"
        )


def _chosen(length: int) -> NDArray[np.int64]:
    if length <= SAMPLES:
        return np.arange(length)
    return np.sort(np.random.default_rng(length).choice(length, SAMPLES, replace=False))


def agree(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two answers are the same, but for rounding."""
    if one.shape != other.shape:
        return False
    if other.dtype.kind in "iub":
        return bool((np.abs(one.astype(np.int64) - other.astype(np.int64)) <= 1).all())
    return bool(np.isclose(one, other, rtol=CLOSE, atol=CLOSE, equal_nan=True).all())
