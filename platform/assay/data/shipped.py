"""Real images that ship with installed packages. Nothing is ever downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

_FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
PHOTOGRAPHS = {
    "astronaut": "skimage/astronaut.png",
    "camera": "skimage/camera.png",
    "chelsea": "skimage/chelsea.png",
    "china": "sklearn/china.jpg",
    "coffee": "skimage/coffee.png",
    "coins": "skimage/coins.png",
    "flower": "sklearn/flower.jpg",
    "motorcycle": "skimage/motorcycle_left.png",
    "rocket": "skimage/rocket.jpg",
}
"""Photographs of things, from 300 x 451 to 512 x 512 pixels and more; `camera` and `coins` are grey."""

TEXTURES = {
    "brick": "skimage/brick.png",
    "grass": "skimage/grass.png",
    "gravel": "skimage/gravel.png",
    "hubble": "skimage/hubble_deep_field.jpg",
    "ihc": "skimage/ihc.png",
    "moon": "skimage/moon.png",
    "retina": "skimage/retina.jpg",
}
"""Photographs filled with one texture; `brick`, `grass`, `gravel` and `moon` are grey."""


def shipped_file(name: str) -> Path:
    """The path of `<package>/<file>`. Raises `InputError` if the installed package does not contain it."""
    package, _, file = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(f"the package {package}, which ships {file}, is not installed: run `make setup`")
    path = Path(spec.origin).parent / _FOLDERS[package] / file
    if not path.is_file():
        raise InputError(f"{path}: the installed {package} does not contain this image: run `make setup`")
    return path


def shipped_image(name: str) -> Image.Image:
    """A photograph or texture by its short name, as RGB."""
    from PIL import Image

    with Image.open(shipped_file((PHOTOGRAPHS | TEXTURES)[name])) as image:
        return image.convert("RGB")
