"""`assay predict`: a registered model on files, through the same preprocessing as serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from assay.errors import InputError
from assay.settings import Settings
from assay.task import load_task
from assay.tracking.registry import CHAMPION, Registry
from assay.tracking.tracker import Tracker

Progress = Callable[[int, int, str], None]


def predict(model: str, paths: Sequence[Path], settings: Settings, progress: Progress) -> dict[str, Any]:
    """Answers for files and for all files in folders; files that cannot be read are named, the others answered.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a NAME, which means its champion.
    """
    import mlflow.pyfunc
    import numpy as np

    registry = Registry(Tracker(settings))
    uri = _uri(model, registry)
    files = list(_files(paths))
    loaded = mlflow.pyfunc.load_model(uri)
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
    return {"model": uri, "run_id": facts["run_id"], "predictions": predictions, "rejected": rejected}


def _uri(model: str, registry: Registry) -> str:
    """The model's address, its existence checked."""
    from mlflow.exceptions import MlflowException

    name = model.removeprefix("models:/")
    if "@" in name:
        name, _, alias = name.partition("@")
        registry.get(name, None)
        try:
            registry.client.get_model_version_by_alias(name, alias)
        except MlflowException:
            raise InputError(f"model {name!r} has no alias {alias!r}: see `assay ui`, or name a version") from None
        return f"models:/{name}@{alias}"
    if "/" in name:
        name, _, number = name.partition("/")
        return f"models:/{name}/{registry.get(name, number).version}"
    registry.get(name, None)
    if registry.champion(name) is None:
        raise InputError(f"model {name!r} has no champion: promote a version, or name one as models:/{name}/1")
    return f"models:/{name}@{CHAMPION}"


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
