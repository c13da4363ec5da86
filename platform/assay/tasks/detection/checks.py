"""What is refused before a detection begins."""

from __future__ import annotations

import difflib

import torch

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.errors import InputError
from assay.networks import catalog
from assay.networks.shape import CONVNET
from assay.tasks.detection.config import DETECTORS, Config
from assay.tasks.detection.reference import Reference, fill

SMALLEST_BATCH = 4  # smaller ones teach batch normalization nothing


def check(config: ExperimentConfig, dataset: Dataset) -> None:
    """Refuse settings that cannot work together.

    Raises:
        InputError: the key, what is wrong, and the fix.
    """
    task, card = config.task, dataset.card
    assert isinstance(task, Config)
    if card.annotation != "boxes":
        raise InputError(
            f"data: {config.data} is annotated with {card.annotation}, not boxes: choose a dataset of kind "
            "coco, voc or digit_scenes, or another task"
        )
    for split in ("train", "val"):
        if not any(card.counts[split].values()):
            raise InputError(f"data: {config.data} has no box in {split}: nothing can be learnt or measured there")
    if task.weights == "none" and config.train.batch_size < SMALLEST_BATCH:
        raise InputError(
            f"train.batch_size: {config.train.batch_size} is too small for batch normalization from a random "
            f"start: set it to {SMALLEST_BATCH} or more"
        )
    if task.whole:
        _check_whole(task, config.train.compile)
    else:
        _check_compact(task, card.channels)


def _check_compact(task: Config, channels: int) -> None:
    stride = task.strides[-1]
    for side in task.size:
        if side % stride:
            near = max(stride, round(side / stride) * stride)
            raise InputError(f"task.image_size: {side} is not a multiple of the stride {stride}: use {near}")
    if task.architecture == CONVNET:
        return
    try:
        catalog.check(task.architecture, task.weights, min(task.size), channels)
    except InputError as error:
        whole = difflib.get_close_matches(task.architecture, DETECTORS, n=1, cutoff=0.8)
        raise InputError(f"{error}; of whole detectors, {whole[0]} is near" if whole else str(error)) from None
    with torch.device("meta"):
        catalog.feature_maps(
            task.architecture, channels=channels, weights=task.weights, pretrained=False, strides=task.strides
        )


def _check_whole(task: Config, compiled: bool) -> None:
    if compiled:
        raise InputError(
            f"train.compile: torch.compile cannot follow {task.architecture}: set it to false, or name a backbone, "
            "such as timm:tf_efficientnet_lite0, as task.architecture"
        )
    if task.weights != "none":
        fill(Reference(task, 3, 1, [0.5] * 3, [0.25] * 3), task, pretrained=True)
