"""The model registry: versions with a safe format and a signature, the `champion` alias, and the way back."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.config.plugin import load_serving
from assay.config.schema import resolved
from assay.errors import InputError, WorkError
from assay.tracking import artifacts
from assay.tracking.provenance import PREFIX
from assay.tracking.tracker import Tracker, pages

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.pyfunc import PyFuncModel

    from assay.config.experiment import ExperimentConfig
    from assay.data.dataset import Dataset
    from assay.task import Task

CHAMPION = "champion"
PREVIOUS = PREFIX + "previous_champion"
REQUIREMENTS = ("torch", "numpy", "mlflow")
"""What serving a traced model requires, in the versions that created it."""
CODE_REQUIREMENTS = (*REQUIREMENTS, "torchvision", "timm", "pydantic", "safetensors", "pillow", "pyarrow")
"""What serving a model that is kept as code and weights requires."""


class Registry:
    """The registered models of a tracking store."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._client = tracker._client

    def find(self, model: str, run_id: str) -> ModelVersion | None:
        """The version that a run was registered as."""
        versions = pages(self._client.search_model_versions, f"name = '{model}'")
        return next((version for version in versions if version.run_id == run_id), None)

    def get(self, model: str, version: str | None) -> ModelVersion:
        """A version, the newest if none is named. Raises `InputError` for an unknown one, naming the known ones."""
        versions: dict[str, ModelVersion] = {
            str(v.version): v for v in pages(self._client.search_model_versions, f"name = '{model}'")
        }
        if not versions:
            names = ", ".join(sorted(m.name for m in pages(self._client.search_registered_models))) or "none"
            raise InputError(f"no registered model {model!r}. Known: {names}.")
        number = version or max(versions, key=int)
        if number not in versions:
            raise InputError(f"model {model!r} has no version {number}. Known: {', '.join(sorted(versions, key=int))}.")
        return versions[number]

    def named(self, address: str) -> ModelVersion:
        """The version that an address means: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a NAME, its champion.

        Raises:
            InputError: there is no such version; names those that exist.
        """
        from mlflow.exceptions import MlflowException

        name = address.removeprefix("models:/")
        if "/" in name:
            name, _, number = name.partition("/")
            return self.get(name, number)
        name, _, alias = name.partition("@")
        self.get(name, None)
        try:
            return self._client.get_model_version_by_alias(name, alias or CHAMPION)
        except MlflowException:
            hint = f"promote a version, or name one as models:/{name}/1"
            raise InputError(f"model {name!r} has no {alias or CHAMPION!r}: {hint}") from None

    def load(self, version: ModelVersion, folder: Path) -> tuple[PyFuncModel, Mapping[str, Any]]:
        """A version, fetched into `folder` and ready to predict, and what Assay recorded when it was registered.

        Raises:
            InputError: Assay did not register it.
        """
        import mlflow.pyfunc

        with _packages_found_by_name():
            loaded = mlflow.pyfunc.load_model(str(self.tracker.fetch(run_of(version), "model", folder)))
        facts = (loaded.metadata.metadata or {}).get("assay")
        if facts is None:
            raise InputError(f"models:/{version.name}/{version.version}: this model was not registered by Assay")
        return loaded, facts

    def champion(self, model: str) -> ModelVersion | None:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version_by_alias(model, CHAMPION)
        except MlflowException:
            return None

    def add(self, model: str, run_id: str, config: ExperimentConfig, dataset: Dataset, task: Task) -> ModelVersion:
        """Save the exported network with its run and register it as a version; the alias does not move."""
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as folder:
            with _packages_found_by_name():
                save_model(Path(folder) / "model", run_id, config, dataset, task)
            self._client.log_artifacts(run_id, str(Path(folder) / "model"), artifacts.MODEL)
        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self.tracker.get(run_id).info.artifact_uri}/{artifacts.MODEL}"
        return self._client.create_model_version(model, source, run_id)

    def crown(self, version: ModelVersion, report: Mapping[str, Any]) -> None:
        """Give the alias to a version, recording which version had it."""
        old = self.champion(version.name)
        if old is not None and old.version == version.version:
            return
        self._tag(version, PREVIOUS, str(old.version) if old is not None else "")
        self._tag(version, PREFIX + "promoted_at", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        self._tag(version, PREFIX + "gate", json.dumps(report))
        self._client.set_registered_model_alias(version.name, CHAMPION, str(version.version))

    def reject(self, version: ModelVersion, report: Mapping[str, Any]) -> None:
        self._tag(version, PREFIX + "gate", json.dumps(report))

    def rollback(self, model: str) -> tuple[ModelVersion, ModelVersion]:
        """Give the alias back to the champion before; returns (restored, demoted)."""
        self.get(model, None)
        current = self.champion(model)
        if current is None:
            raise InputError(f"model {model!r} has no champion to roll back from")
        previous = current.tags.get(PREVIOUS)
        if not previous:
            raise InputError(
                f"version {current.version} is the first champion of model {model!r}: there is none to go back to"
            )
        restored = self.get(model, previous)
        self._client.set_registered_model_alias(model, CHAMPION, previous)
        self._tag(current, PREFIX + "rolled_back_at", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        return restored, current

    def _tag(self, version: ModelVersion, name: str, value: str) -> None:
        self._client.set_model_version_tag(version.name, str(version.version), name, value)


def run_of(version: ModelVersion) -> str:
    """The run that a version comes from."""
    if not version.run_id:
        raise InputError(f"version {version.version} of {version.name!r} has no run: it was not registered by Assay")
    run_id: str = version.run_id
    return run_id


def save_model(path: Path, run_id: str, config: ExperimentConfig, dataset: Dataset, task: Task) -> None:
    """Save an MLflow model without pickle, and prove that it answers as the network does.

    A traceable network becomes a `pt2` program, which needs no code of ours; any other is kept as the parts that
    `serve.py` builds it from, and its weights.
    """
    import mlflow.pyfunc
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    export = load_serving(config.task.name).export(task)
    module, example = export.module.eval(), export.example
    with torch.no_grad():
        expected = module(torch.from_numpy(example)).numpy()
    shape = tuple(-1 if axis in export.dynamic else size for axis, size in enumerate(example.shape))
    common: dict[str, Any] = {
        "signature": ModelSignature(
            inputs=Schema([TensorSpec(example.dtype, shape)]),
            outputs=Schema([TensorSpec(expected.dtype, (-1, *expected.shape[1:]))]),
        ),
        "input_example": example,
        "metadata": {"assay": {"task": config.task.name, "run_id": run_id, "facts": dict(export.metadata)}},
    }
    if export.traceable:
        import mlflow.pytorch

        common["pip_requirements"] = _pinned(REQUIREMENTS)
        mlflow.pytorch.save_model(module, str(path), serialization_format="pt2", **common)
    else:
        common["pip_requirements"] = _pinned(CODE_REQUIREMENTS)
        _save_as_code(path, common, config, dataset, task)
    answer = mlflow.pyfunc.load_model(str(path)).predict(example)
    if not np.array_equal(np.asarray(answer), expected):
        raise WorkError(
            f"the exported model of run {run_id} does not answer as the trained one does: it was not registered"
        )


def _save_as_code(
    path: Path, common: Mapping[str, Any], config: ExperimentConfig, dataset: Dataset, task: Task
) -> None:
    """Save what `serve.py` builds the network from, and this package's code."""
    import mlflow.pyfunc
    from safetensors.torch import save_file

    from assay.data.dataset import CARD

    package = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "trained"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(resolved(config)))
        shutil.copyfile(dataset.folder / CARD, folder / CARD)
        save_file({key: tensor.contiguous() for key, tensor in task.state_dict().items()}, folder / "model.safetensors")
        mlflow.pyfunc.save_model(
            str(path),
            python_model=str(package / "tracking" / "serve.py"),
            artifacts={"trained": str(folder)},
            code_paths=[str(package)],
            **common,
        )


@contextmanager
def _packages_found_by_name() -> Iterator[None]:
    """Let MLflow compare a model's requirements with the packages here without first listing all of their files.

    It does so to know which package has which module, takes more than a second for it, and needs it only if a
    requirement is named after a module, which ours are not.
    """
    from mlflow.utils import requirements_utils

    kept = requirements_utils._MODULES_TO_PACKAGES
    requirements_utils._MODULES_TO_PACKAGES = kept or {}  # type: ignore[assignment]
    try:
        yield
    finally:
        requirements_utils._MODULES_TO_PACKAGES = kept


def _pinned(names: tuple[str, ...]) -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]
