"""How a generator is exported, and how images are requested from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.data.images import encode
from assay.errors import InputError, known
from assay.files import load_json
from assay.task import Answer, Export, Picture
from assay.task import Serving as Contract

if TYPE_CHECKING:
    from assay.tasks.gan.task import Task


class Serving(Contract["Task"]):
    """Latents, and a class if the generator is conditional, to images."""

    @classmethod
    def export(cls, task: Task) -> Export:
        from assay.tasks.gan.model import Served

        return Export(
            module=Served(task.average).cpu().eval(),
            example=np.zeros((2, task.config.latent + len(task.classes)), dtype=np.float32),
            dynamic=(0,),
            metadata={"classes": task.classes, "latent": task.config.latent},
        )

    @classmethod
    def answered(
        cls, task: Task, source: Any, chosen: np.ndarray[Any, Any]
    ) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """The latents and classes of an evaluation, and the images that it judges."""
        from assay.tasks.gan.model import as_bytes

        for number in chosen:
            batch = source.load(number[None], None)
            inputs = task.inputs(batch["latent"], batch["label"])
            yield inputs.numpy(), as_bytes(task.average(inputs)).numpy()

    def read(self, path: Path) -> NDArray[np.float32]:
        """A request {"class": "3", "seed": 7}: a latent and its class, [1, latent + classes]."""
        classes = self.metadata["classes"]
        request = _request(path, ["class", "seed"] if classes else ["seed"])
        seed = request.get("seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise InputError(f"{path}: seed must be a whole number of 0 or more, not {seed!r}")
        if not classes:
            return self.sample(1, seed)
        name = str(request.get("class"))
        if name not in classes:
            raise InputError(f"{path}: {known('class', name, classes)}")
        return self._inputs(seed, np.array([classes.index(name)]))

    def sample(self, count: int, seed: int) -> NDArray[np.float32]:
        """Latents by the seed, the classes in turn: float32 [count, latent + classes]."""
        return self._inputs(seed, np.arange(count) % max(1, len(self.metadata["classes"])))

    def _inputs(self, seed: int, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """A latent for each label, the class one-hot behind it: [N, latent + classes]."""
        from assay.tasks.gan.data import latents

        latent = latents(seed, np.arange(len(labels)), self.metadata["latent"]).numpy()
        classes = len(self.metadata["classes"])
        return np.concatenate([latent, np.eye(classes, dtype=np.float32)[labels]], 1) if classes else latent

    def describe(self, inputs: NDArray[np.float32], outputs: NDArray[np.uint8]) -> list[Answer]:
        """An image each, and the class that was requested."""
        classes, latent = self.metadata["classes"], self.metadata["latent"]
        requested = [{"class": classes[int(row[latent:].argmax())]} if classes else {} for row in inputs]
        return [
            Answer(values, [Picture("sample", encode(image))]) for values, image in zip(requested, outputs, strict=True)
        ]


def _request(path: Path, keys: list[str]) -> dict[str, Any]:
    """The JSON object of a file, which may have these keys."""
    try:
        request = load_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise InputError(f'{path}: not JSON; write a request such as {{"seed": 7}}') from None
    if not isinstance(request, dict):
        raise InputError(f'{path}: must be one JSON object, such as {{"seed": 7}}')
    for key in request:
        if key not in keys:
            raise InputError(f"{path}: {known('key', str(key), keys)}")
    return request
