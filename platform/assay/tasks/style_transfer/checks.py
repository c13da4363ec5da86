"""What is refused before a style transfer begins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from assay.config.card import Card
from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.data.split import SPLITS
from assay.errors import InputError
from assay.networks import catalog
from assay.tasks.style_transfer.config import Config
from assay.tasks.style_transfer.data import CONTENT, STYLE, Images, chosen_content, chosen_styles

SMALLEST_MAP = 2
"""Positions a side of the deepest map: the Gram matrix of a single one holds no texture."""


def check(config: ExperimentConfig, dataset: Dataset) -> None:
    """Refuse settings that cannot work together.

    Raises:
        InputError: the key or the file, what is wrong, and the fix.
    """
    assert isinstance(config.task, Config)
    _check_annotation(config, dataset)
    _check_training(config, config.task, dataset.card)
    _check_layers(config.task)
    chosen_styles(config.task, dataset)
    if config.task.method == "optimize":
        chosen_content(config.task, dataset)
    _check_images(dataset)


def _check_annotation(config: ExperimentConfig, dataset: Dataset) -> None:
    card, name = dataset.card, config.data
    if card.annotation != "style":
        raise InputError(
            f"data: {name!r} is annotated with {card.annotation}; style transfer needs contents and styles: "
            "add a folder of content/ and style/ with `assay data add --kind style_folder`"
        )
    if not card.counts["train"]["style"]:
        raise InputError(f"data: {name!r} has no style image: put at least one into its folder style/")
    if not card.counts["train"]["content"]:
        raise InputError(f"data: {name!r} has no content image to train on: put more into its folder content/")


def _check_training(config: ExperimentConfig, task: Config, card: Card) -> None:
    train = config.train
    if task.method == "optimize":
        if train.workers > 1:
            raise InputError(f"train.workers: {train.workers}; method optimize works in one process: set it to 0 or 1")
        if train.batch_size != 1:
            raise InputError(f"train.batch_size: {train.batch_size}; method optimize sees one view a step: set it to 1")
    elif (crops := card.counts["train"]["content"] * task.crops_per_image) < train.workers:
        raise InputError(
            f"train.workers: {train.workers} workers, but {crops} training samples: raise task.crops_per_image"
        )
    if config.optimizer.name != "lbfgs":
        return
    if task.method != "optimize":
        raise InputError("optimizer.name: lbfgs needs the same loss at each step: use adam, or task.method: optimize")
    if train.precision != "fp32":
        raise InputError(f"train.precision: {train.precision} is too coarse for lbfgs: use fp32, or adam")
    if train.accumulate > 1:
        raise InputError(f"train.accumulate: {train.accumulate}; lbfgs cannot accumulate: set it to 1")
    if train.clip is not None:
        raise InputError("train.clip: lbfgs chooses its own step lengths: leave it out")


def _check_layers(task: Config) -> None:
    """The layers exist, and their maps are large enough."""
    choice = task.perceptual
    layers = tuple(dict.fromkeys((*choice.style_layers, *choice.content_layers)))
    with torch.random.fork_rng(devices=[]):
        try:
            network = catalog.perceptual(choice.architecture, weights=choice.weights, layers=layers)
        except InputError as error:
            raise InputError(f"task.perceptual: {error}") from None
    for key in ("image_size", "crop_size") if task.method == "network" else ("image_size",):
        _check_size(key, getattr(task, key), network)


def _check_size(key: str, size: int, network: catalog.Perceptual) -> None:
    with torch.no_grad():
        try:
            maps = network(torch.zeros(1, 3, size, size))
        except RuntimeError:
            raise InputError(f"task.{key}: {size} is too small for the perceptual network: double it") from None
    for layer, found in maps.items():
        if found.ndim != 4:
            raise InputError(f"task.perceptual: the layer {layer} returns no map [B, C, H, W]: choose a convolution")
        if min(found.shape[2:]) < SMALLEST_MAP:
            raise InputError(f"task.{key}: {size} leaves {layer} a single position: double it, or leave the layer out")


def _check_images(dataset: Dataset) -> None:
    """No picture has only one colour, and so neither content nor texture."""
    found = [Images.of(dataset, split, CONTENT) for split in SPLITS] + [Images.of(dataset, "train", STYLE)]
    work = [(images, number) for images in found for number in range(len(images))]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for (images, number), flat in zip(work, pool.map(lambda pair: _is_flat(*pair), work), strict=True):
            if flat:
                raise InputError(f"{images.names[number]}: has only one colour: leave it out")


def _is_flat(images: Images, number: int) -> bool:
    pixels = images.pixels(number).flatten(1)
    return bool((pixels == pixels[:, :1]).all())
