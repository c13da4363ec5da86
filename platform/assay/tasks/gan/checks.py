"""What is refused before a GAN begins."""

from __future__ import annotations

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.errors import InputError
from assay.tasks.gan.config import Config

FEWEST = 4  # images in a batch


def check(config: ExperimentConfig, dataset: Dataset) -> None:
    """Refuse settings that cannot work together.

    Raises:
        InputError: the key, what is wrong, and the fix.
    """
    task, card, train = config.task, dataset.card, config.train
    assert isinstance(task, Config)
    if train.batch_size < FEWEST * max(1, train.workers):
        raise InputError(f"train.batch_size {train.batch_size}: a GAN needs at least {FEWEST} images a worker")
    if config.optimizer.name == "lbfgs":
        raise InputError("optimizer.name lbfgs: two networks against each other have no single loss; use adam")
    if task.conditional and card.annotation != "class":
        raise InputError(
            f"task.conditional: dataset {card.name!r} gives its images no class; set task.conditional=false"
        )
    missing = [name for name in card.classes if task.conditional and not card.counts["train"][name]]
    if missing:
        raise InputError(
            f"task.conditional: no training image of dataset {card.name!r} shows {missing[0]!r}; "
            "add some, or set task.conditional=false"
        )
    if task.slope_weight and train.compile:
        raise InputError(
            "train.compile: torch.compile cannot compute gradients of gradients, which task.penalty needs; "
            "set train.compile=false"
        )
    if task.slope_weight and train.precision == "fp16":
        raise InputError(
            "train.precision fp16: too coarse for the gradients that task.penalty squares; use bf16 or fp32"
        )
