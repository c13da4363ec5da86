"""`assay predict`: a registered model on files, through the same preprocessing as serving."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.config.plugin import load_serving
from assay.errors import InputError
from assay.files import write_atomic
from assay.settings import Settings
from assay.tracking.registry import Registry
from assay.tracking.tracker import Tracker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from assay.task import Serving

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Request:
    """What the command line asks for: answers for `paths`, or `count` samples of a model that needs no file.

    Pictures among the answers are written to `out`.
    """

    model: str
    paths: Sequence[Path]
    count: int = 0
    seed: int = 0
    out: Path = Path("predictions")


def predict(request: Request, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Answers for files and for all files in folders; files that cannot be read are named, the others answered."""
    if bool(request.paths) == bool(request.count):
        raise InputError("predict: name files or folders, or, for a model that generates, --count")
    registry = Registry(Tracker(settings))
    version = registry.named(request.model)
    files = list(_files(request.paths))
    with tempfile.TemporaryDirectory() as folder:
        loaded, registered = registry.load(version, Path(folder))
        serving = load_serving(registered["task"])(registered["facts"])
        rejected: list[dict[str, str]] = []
        inputs = _read(request, files, serving, rejected)
        predictions = _answers(request, inputs, loaded, serving, progress, len(files) or request.count)
    return {
        "model": version.name,
        "version": str(version.version),
        "run_id": registered["run_id"],
        "predictions": predictions,
        "rejected": rejected,
    }


def _read(
    request: Request, files: Sequence[Path], serving: Serving[Any], rejected: list[dict[str, str]]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """(name, input [1, ...]) of each file or sample; bad files go to `rejected`."""
    if request.count:
        samples = serving.sample(request.count, request.seed)
        yield from ((f"sample-{number:04d}", samples[number : number + 1]) for number in range(request.count))
    for path in files:
        try:
            batch = serving.read(path)
        except InputError as error:
            rejected.append({"file": str(path), "reason": str(error).removeprefix(f"{path}: ")})
        else:
            yield str(path), batch


def _answers(
    request: Request,
    inputs: Iterator[tuple[str, NDArray[Any]]],
    loaded: Any,
    serving: Serving[Any],
    progress: Progress,
    total: int,
) -> list[dict[str, Any]]:
    import numpy as np

    predictions = []
    for number, (name, batch) in enumerate(inputs, 1):
        (answer,) = serving.describe(batch, np.asarray(loaded.predict(batch)))
        row = {"file": name, **answer.values}
        for picture in answer.pictures:
            target = request.out / f"{number:04d}-{Path(name).stem}-{picture.name}.png"
            write_atomic(target, picture.png)
            row.setdefault("pictures", []).append(str(target))
        predictions.append(row)
        progress(number, total, Path(name).name)
    return predictions


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            if not inside:
                raise InputError(f"{path}: the folder has no files")
            yield from inside
        elif path.exists():
            yield path
        else:
            raise InputError(f"{path}: no such file or folder")
