"""`assay predict`: a registered model on files, with the same preprocessing as in serving."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.config.plugin import load_serving
from assay.errors import InputError
from assay.files import write_atomic
from assay.progress import Progress
from assay.scratch import scratch_folder
from assay.settings import Settings
from assay.tracking.known_store import known
from assay.tracking.registry import Registry
from assay.tracking.tracker import Tracker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from assay.task import Serving


@dataclass(frozen=True)
class PredictRequest:
    """What to predict: the files of `paths`, or `count` samples of a generative model.

    Pictures that the model produces are written to the folder `out`.
    """

    model: str
    paths: Sequence[Path]
    count: int = 0
    seed: int = 0
    out: Path = Path("predictions")


def predict(request: PredictRequest, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Run a model on files and on all files in folders. Files that cannot be read are listed as `rejected`.

    Raises:
        InputError: neither files nor a count, both, a file that is missing, an empty folder, or no such model.
    """
    if bool(request.paths) == bool(request.count):
        raise InputError("predict: name files or folders, or, for a generative model, use --count")
    registry = Registry(known(Tracker(settings)))
    version = registry.named(request.model)
    files = list(_files(request.paths))
    with scratch_folder(settings.root) as folder:
        loaded, registered = registry.load(version, folder)
        serving = load_serving(registered["task"])(registered["facts"])
        rejected: list[dict[str, str]] = []
        inputs = _read(request, files, serving, rejected)
        predictions = _predict(request, inputs, loaded, serving, progress, len(files) or request.count)
    return {
        "model": version.name,
        "version": str(version.version),
        "run_id": registered["run_id"],
        "predictions": predictions,
        "rejected": rejected,
    }


def _read(
    request: PredictRequest, files: Sequence[Path], serving: Serving[Any], rejected: list[dict[str, str]]
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


def _predict(
    request: PredictRequest,
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
                raise InputError(f"{path}: the folder contains no files")
            yield from inside
        elif path.exists():
            yield path
        else:
            raise InputError(f"{path}: no such file or folder")
