"""The artifacts of a run in the tracking store, each named once.

Existing runs have these names: never change one.
"""

from __future__ import annotations

RECORD = "record.json"
"""What `assay train` or `assay tune` printed at the end. Written last: a run that has it is complete."""

PROVENANCE = "provenance"
"""The folder of what the run was made from."""
CONFIG = f"{PROVENANCE}/config.json"
"""The settings with every default written out. The last of the provenance."""
PACKAGES = f"{PROVENANCE}/packages.json"
"""The versions of all installed packages."""
DIFF = f"{PROVENANCE}/working-tree.diff"
"""The changes that were not committed."""
CARD = f"{PROVENANCE}/dataset.json"
"""The card of the dataset version: with the settings, all that a network is built from."""
EXPLAIN = (CONFIG, PACKAGES, DIFF, CARD)
"""Without one of those that were recorded, a run cannot be registered."""
SEEN = f"{PROVENANCE}/seen.bin"
"""Of a registered run: the identities of the images it was trained and validated on, sorted, 16 bytes each."""


def of_session(number: int, name: str) -> str:
    """What a later session of a run was made from: `PACKAGES` or `DIFF`. Those of the first are the run's own."""
    return f"{PROVENANCE}/sessions/{number:04d}/{name.removeprefix(f'{PROVENANCE}/')}"


WEIGHTS_FOLDER = "weights"
WEIGHTS = f"{WEIGHTS_FOLDER}/model.safetensors"
"""The kept weights."""
MODEL = "model"
"""The folder of the model in MLflow's format, of a registered run."""
GATE_REPORT = "gate/report.json"
"""The gate's decision on a registered run."""

PICTURES = "pictures"
"""The folder of all pictures and of the numbers that they show."""
CURVES = f"{PICTURES}/curves.csv"
"""The training and validation metrics by step: metric, step, value."""
CURVES_PICTURE = f"{PICTURES}/curves.png"
TRAINING_PICTURES = f"{PICTURES}/training"
"""The folder of pictures made while training."""

PAGE = "search.html"
"""The report on a search."""
TRIALS = "trials.csv"
"""A search's trials with their settings and metrics."""


def is_read_again(name: str) -> bool:
    """Whether commands read an artifact again, so that its hash is kept in a tag and compared then.

    The files of a model have one hash of their own, in the registry, and the weights one in the record.
    """
    if name.startswith(f"{PICTURES}/"):
        return not name.startswith(f"{TRAINING_PICTURES}/")
    return name in (RECORD, GATE_REPORT, PAGE, TRIALS) or name.startswith(f"{PROVENANCE}/")


def evaluation_picture(split: str, name: str) -> str:
    """A picture of an evaluation."""
    return f"{PICTURES}/{split}-{name}.png"


def evaluation_table(split: str, name: str) -> str:
    """The numbers that a picture of an evaluation shows."""
    return f"{PICTURES}/{split}-{name}.json"


def search_picture(name: str) -> str:
    """A picture of a search's page."""
    return f"{PICTURES}/{name}.png"
