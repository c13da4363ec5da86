"""How networks and their weights are named in `params.yaml`: `library:name`, and where weights come from. No torch."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

LIBRARIES = ("torchvision", "timm")
ENDINGS = (".safetensors", ".pth", ".pt")


def check_architecture(value: str) -> str:
    """The value, if it has the right form. Raises `ValueError` if not."""
    if not re.fullmatch(rf"({'|'.join(LIBRARIES)}):[A-Za-z0-9_.-]+", value):
        raise ValueError(
            f"{value!r} names no network: write library:name, "
            "such as torchvision:resnet18 or timm:tf_efficientnet_lite0"
        )
    return value


def check_weights(value: str) -> str:
    """The value, if it has the right form. Raises `ValueError` if not."""
    if value not in ("none", "imagenet") and not value.endswith(ENDINGS):
        raise ValueError(
            f"{value!r} names no weights: write none, imagenet, or the path of a file that ends in {', '.join(ENDINGS)}"
        )
    return value


ArchitectureName = Annotated[str, AfterValidator(check_architecture)]
"""`torchvision:<name>` or `timm:<name>`; whether the library has it is not checked until it is imported."""

WeightsName = Annotated[str, AfterValidator(check_weights)]
"""`none` (a random start), `imagenet`, or the path of a file of tensors."""


def parts(architecture: str) -> tuple[str, str]:
    """The library and the name in it."""
    library, _, name = architecture.partition(":")
    return library, name


def weight_files(weights: str) -> tuple[str, ...]:
    """The files that a choice of weights names, at most one."""
    return () if weights in ("none", "imagenet") else (weights,)
