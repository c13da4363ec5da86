"""What is refused before a classification begins."""

from __future__ import annotations

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.errors import InputError
from assay.tasks.classification.config import OWN, Config


def check(config: ExperimentConfig, dataset: Dataset) -> None:
    """Refuse settings that cannot work together.

    Raises:
        InputError: the key, what is wrong, and the fix.
    """
    task, card = config.task, dataset.card
    assert isinstance(task, Config)
    _check_annotation(task, card.name, card.annotation)
    if config.optimizer.name == "lbfgs":
        raise InputError("optimizer.name: lbfgs needs all samples in each step; use adamw, adam or sgd")
    if min(config.train.batch_size, card.samples["train"]) < 2:
        raise InputError("train.batch_size: 1 is too few: batch normalization compares samples; set 2 or more")
    absent = [name for name, count in card.counts["train"].items() if not count]
    if task.balance == "weights" and absent:
        raise InputError(
            f"task.balance: the training split of {card.name!r} has no sample of {', '.join(absent[:5])}, whose weight "
            "would be infinite: set balance: sampling or none, or add samples"
        )
    if task.architecture not in OWN:
        from assay.networks import catalog

        catalog.check(task.architecture, task.weights, task.image_size, card.channels)


def _check_annotation(task: Config, name: str, annotation: str) -> None:
    several = annotation in ("labels", "boxes")
    if annotation not in ("class", "labels", "boxes"):
        raise InputError(f"task.name: dataset {name!r} has the annotation {annotation!r}: nothing to classify by")
    if task.multi_label and not several:
        raise InputError(f"task.multi_label: dataset {name!r} gives each image one class: set multi_label: false")
    if several and not task.multi_label:
        raise InputError(f"task.multi_label: dataset {name!r} gives each image several labels: set multi_label: true")
