"""From a config and an opened dataset to a `Training`; from stored weights back to a task. The same bits anywhere."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from assay.config.experiment import ExperimentConfig
from assay.config.plugin import load_task
from assay.data.dataset import Dataset
from assay.errors import WorkError
from assay.task import Task
from assay.train.checkpoint import Weights, weights_sha256
from assay.train.context import LocalContext
from assay.train.loop import Training
from assay.train.randomness import key


def prepare(config: ExperimentConfig, dataset: Dataset, context: LocalContext) -> Training:
    """The training of an experiment, from its newest checkpoint if there is one. Depends on its arguments alone.

    Raises:
        WorkError: all existing checkpoints are damaged, or the data were written to meanwhile.
    """
    be_deterministic(context.threads, context.compiled)
    task_class, source = load_task(config.task.name)
    torch.manual_seed(key(config.seed, "init"))
    sources = {split: source(config.task, dataset, split) for split in ("train", "val")}
    task = task_class.build(config, dataset, context)
    dataset.require_unchanged()
    if all(source.in_memory for source in sources.values()):
        return Training(task, sources, config, context)
    return Training(task, sources, config, context, dataset.require_unchanged)


def be_deterministic(threads: int, compiled: bool = False) -> None:
    """Let torch compute the same bits each time, with this many threads."""
    torch.set_num_threads(threads)
    if compiled:
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:
        torch.set_deterministic_debug_mode("warn")  # the same without importing the compiler, which takes two seconds
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # a check that costs a write of every output
    torch.backends.cudnn.benchmark = False


def load_weights(path: Path, sha256: str, whose: str) -> Weights:
    """A safetensors file, if it holds the weights that were recorded: `weights_sha256` of them is `sha256`.

    Args:
        whose: names them in the error.

    Raises:
        WorkError: the file is damaged, or holds other weights.
    """
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WorkError(f"the weights of {whose} cannot be read ({error}): restore them, or train again") from None
    if (found := weights_sha256(weights)) != sha256:
        raise WorkError(
            f"the weights of {whose} are not those that were recorded (sha256 {found[:12]}…, recorded {sha256[:12]}…): "
            "restore them, or train again"
        )
    return weights


def rebuild(config: ExperimentConfig, dataset: Dataset, folder: Path, weights: Weights | None = None) -> Task:
    """The task of an experiment on the CPU, with stored weights.

    Args:
        dataset: its card gives the shapes (classes, channels); some tasks also read its training samples.
        folder: for what the context may write.
        weights: from `load_weights`; None leaves weights without meaning, for what does not depend on them.
    """
    context = LocalContext(folder, torch.device("cpu"), torch.get_num_threads())
    context.pretrained = False
    task = load_task(config.task.name)[0].build(config, dataset, context)
    if weights is not None:
        task.load_state_dict(weights)
    return task
