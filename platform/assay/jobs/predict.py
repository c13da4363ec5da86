"""`assay predict`: a registered model on files, through the same preprocessing as serving."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import InputError
from assay.settings import Settings
from assay.task import load_task
from assay.tracking.registry import CHAMPION, Registry, run_of
from assay.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

Progress = Callable[[int, int, str], None]


def predict(model: str, paths: Sequence[Path], settings: Settings, progress: Progress) -> dict[str, Any]:
    """Answers for files and for all files in folders; files that cannot be read are named, the others answered.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a NAME, which means its champion.
    """
    import mlflow.pyfunc
    import numpy as np

    tracker = Tracker(settings)
    version = find(model, Registry(tracker))
    files = list(_files(paths))
    with tempfile.TemporaryDirectory() as folder:
        loaded = mlflow.pyfunc.load_model(str(tracker.fetch(run_of(version), "model", Path(folder))))
    facts = (loaded.metadata.metadata or {}).get("assay")
    if facts is None:
        raise InputError(f"{model}: this model was not registered by Assay")
    task_class, _ = load_task(facts["task"])
    predictions, rejected = [], []
    for number, path in enumerate(files, 1):
        try:
            batch = task_class.read(path, facts["facts"])
        except InputError as error:
            rejected.append({"file": str(path), "reason": str(error).removeprefix(f"{path}: ")})
        else:
            (answer,) = task_class.describe(np.asarray(loaded.predict(batch)), facts["facts"])
            predictions.append({"file": str(path), **answer})
        progress(number, len(files), path.name)
    return {
        "model": version.name,
        "version": str(version.version),
        "run_id": facts["run_id"],
        "predictions": predictions,
        "rejected": rejected,
    }


def find(model: str, registry: Registry) -> ModelVersion:
    """The version that an address means. Raises `InputError` for what is not there, with what is."""
    from mlflow.exceptions import MlflowException

    name = model.removeprefix("models:/")
    if "/" in name:
        name, _, number = name.partition("/")
        return registry.get(name, number)
    name, _, alias = name.partition("@")
    registry.get(name, None)
    try:
        return registry.client.get_model_version_by_alias(name, alias or CHAMPION)
    except MlflowException:
        mend = f"promote a version, or name one as models:/{name}/1"
        raise InputError(f"model {name!r} has no {alias or CHAMPION!r}: {mend}") from None


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
