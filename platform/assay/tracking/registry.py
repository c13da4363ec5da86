"""The model registry: versions with a safe format and a signature, the `champion` alias, and the way back."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.config.plugin import load_serving
from assay.config.schema import resolved
from assay.errors import InputError, WorkError
from assay.scratch import scratch_folder
from assay.system_errors import require_room
from assay.tracking import artifacts
from assay.tracking.paging import pages
from assay.tracking.provenance import PREFIX
from assay.tracking.tickets import TURNS
from assay.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.pyfunc import PyFuncModel

    from assay.config.experiment import ExperimentConfig
    from assay.data.dataset import Dataset
    from assay.task import Task

CHAMPION = "champion"
PROMOTED = PREFIX + "promoted_at"
CROWNED = PREFIX + "crowned"
"""The tag of a version with the number of times that the alias had been given when it got it last."""
ROLLED_BACK = PREFIX + "rolled_back_at"
FILES = PREFIX + "files_sha256"
"""The tag of a version with the hash of its files."""
ROOM = 10_000_000
"""Bytes that a model's files may take besides its weights."""
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
        return next((version for version in self._versions(model) if version.run_id == run_id), None)

    def get(self, model: str, version: str | None) -> ModelVersion:
        """A version, the newest if none is named. Raises `InputError` for an unknown one, naming the known ones."""
        versions = {} if model == TURNS else {str(v.version): v for v in self._versions(model)}
        if not versions:
            known = {m.name for m in pages(self._client.search_registered_models)} - {TURNS}
            names = ", ".join(sorted(known)) or "none"
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
        name = address.removeprefix("models:/")
        if "/" in name:
            name, _, number = name.partition("/")
            return self.get(name, number)
        name, _, alias = name.partition("@")
        self.get(name, None)
        found = self._with_alias(name, alias or CHAMPION)
        if found is None:
            hint = f"promote a version, or name one as models:/{name}/1"
            raise InputError(f"model {name!r} has no {alias or CHAMPION!r}: {hint}")
        return found

    def load(self, version: ModelVersion, folder: Path) -> tuple[PyFuncModel, Mapping[str, Any]]:
        """A version, fetched into `folder` and ready to predict, and what Assay recorded when it was registered.

        Raises:
            InputError: Assay did not register it.
            WorkError: its files are not the ones that were registered.
        """
        import mlflow.pyfunc

        files = self.tracker.fetch(run_of(version), artifacts.MODEL, folder)
        if version.tags.get(FILES, (found := _digest(files))) != found:
            raise WorkError(
                f"models:/{version.name}/{version.version}: its files are not the ones that were registered: "
                f"restore the artifacts `{artifacts.MODEL}` of run {version.run_id}"
            )
        with _mlflow_to_the_point():
            loaded = mlflow.pyfunc.load_model(str(files))
        facts = (loaded.metadata.metadata or {}).get("assay")
        if facts is None:
            raise InputError(f"models:/{version.name}/{version.version}: this model was not registered by Assay")
        return loaded, facts

    def champion(self, model: str) -> ModelVersion | None:
        """None only if there is none: a store that fails says so."""
        return self._with_alias(model, CHAMPION)

    def add(
        self,
        model: str,
        run_id: str,
        config: ExperimentConfig,
        dataset: Dataset,
        task: Task,
        prove: Callable[[Callable[[Any], Any]], None],
        require: Callable[[], None],
    ) -> ModelVersion:
        """Save the exported network with its run and register it as a version; the alias does not move.

        Args:
            prove: called with the exported program, loaded again; raises if it is not what it should be.
            require: called before anything is registered; raises if this process may no longer do so.
        """
        from mlflow.exceptions import MlflowException

        with scratch_folder(self.tracker.settings.root) as folder:
            files = folder / "model"
            with _mlflow_to_the_point():
                prove(save_model(files, run_id, config, dataset, task))
            digest = _digest(files)
            self._client.log_artifacts(run_id, str(files), artifacts.MODEL)
        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{self.tracker.get(run_id).info.artifact_uri}/{artifacts.MODEL}"
        require()
        return self._client.create_model_version(model, source, run_id, tags={FILES: digest})

    def crown(
        self,
        version: ModelVersion,
        report: Mapping[str, Any],
        before: ModelVersion | None,
        require: Callable[[], None],
    ) -> None:
        """Give the alias to a version, as the newest of all that had it.

        What says that it had the alias comes after the alias: a version that a kill keeps from it never was champion.

        Args:
            before: the champion that it was held against, if there was one.
            require: called right before the alias moves; raises if this process may no longer move it.

        Raises:
            WorkError: the champion is another one by now.
        """
        old = self.settle(version.name)
        if old is not None and old.version == version.version:
            return
        if _number(old) != _number(before):
            raise WorkError(f"another version of {version.name!r} became champion meanwhile: run the command again")
        self._tag(version, PREFIX + "gate", json.dumps(report))
        require()
        self._client.set_registered_model_alias(version.name, CHAMPION, str(version.version))
        self._note_crowned(version)

    def settle(self, model: str) -> ModelVersion | None:
        """The champion, once all is noted that a kill kept `crown` from noting. Only for who has the model's turn."""
        champion = self.champion(model)
        if champion is None:
            return None
        others = [version for version in self._versions(model) if ROLLED_BACK not in version.tags]
        newest = all(_crowned(other) <= _crowned(champion) for other in others)
        if newest and PROMOTED in champion.tags and ROLLED_BACK not in champion.tags:
            return champion
        self._note_crowned(champion)
        return self.champion(model)

    def _note_crowned(self, version: ModelVersion) -> None:
        self._tag(version, CROWNED, str(max(map(_crowned, self._versions(version.name)))[0] + 1))
        self._tag(version, PROMOTED, _now())
        if ROLLED_BACK in version.tags:
            self._client.delete_model_version_tag(version.name, str(version.version), ROLLED_BACK)

    def reject(self, version: ModelVersion, report: Mapping[str, Any]) -> None:
        self._tag(version, PREFIX + "gate", json.dumps(report))

    def rollback(self, model: str, require: Callable[[], None]) -> tuple[ModelVersion, ModelVersion]:
        """Give the alias back to the champion before; returns (restored, demoted). `require` as in `crown`."""
        self.get(model, None)
        current = self.settle(model)
        if current is None:
            raise InputError(f"model {model!r} has no champion to roll back from")
        restored = self._champion_before(current)
        require()
        self._tag(current, ROLLED_BACK, _now())  # first: if the next call fails, the same command continues
        require()
        self._client.set_registered_model_alias(model, CHAMPION, str(restored.version))
        return restored, self.get(model, str(current.version))

    def rolled_back(self, model: str) -> list[ModelVersion]:
        """The versions that were rolled back and not promoted since."""
        return [version for version in self._versions(model) if ROLLED_BACK in version.tags]

    def had_alias_before(self, version: ModelVersion, champion: ModelVersion) -> bool:
        """Whether a version was champion before the present one."""
        return PROMOTED in version.tags and _crowned(version) < _crowned(champion)

    def _champion_before(self, current: ModelVersion) -> ModelVersion:
        """The last champion before this one that was not itself rolled back."""
        others = [
            version
            for version in self._versions(current.name)
            if self.had_alias_before(version, current) and ROLLED_BACK not in version.tags
        ]
        if not others:
            raise InputError(
                f"model {current.name!r} has no champion before version {current.version} that was not rolled back: "
                "there is none to go back to"
            )
        return max(others, key=_crowned)

    def _versions(self, model: str) -> list[ModelVersion]:
        return list(pages(self._client.search_model_versions, f"name = '{model}'"))

    def _with_alias(self, model: str, alias: str) -> ModelVersion | None:
        """None if the model is not there or has no such alias."""
        from mlflow.exceptions import MlflowException

        try:
            number = self._client.get_registered_model(model).aliases.get(alias)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return None if number is None else self._client.get_model_version(model, str(number))

    def _tag(self, version: ModelVersion, name: str, value: str) -> None:
        self._client.set_model_version_tag(version.name, str(version.version), name, value)


def _crowned(version: ModelVersion) -> tuple[int, str]:
    """The order of champions; those of earlier Assays, which did not count, by time and before all others."""
    return int(version.tags.get(CROWNED, 0)), version.tags.get(PROMOTED, "")


def _number(version: ModelVersion | None) -> str | None:
    return None if version is None else str(version.version)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


SERVED = "registered_model_meta"
"""A file that MLflow adds to a model in a local artifact store when it serves it: the name and the version."""


def _digest(folder: Path) -> str:
    """One hash of the names and contents of all files in a model's folder, but for what MLflow itself adds there."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SERVED):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()


def run_of(version: ModelVersion) -> str:
    """The run that a version comes from."""
    if not version.run_id:
        raise InputError(f"version {version.version} of {version.name!r} has no run: it was not registered by Assay")
    run_id: str = version.run_id
    return run_id


def save_model(path: Path, run_id: str, config: ExperimentConfig, dataset: Dataset, task: Task) -> Callable[[Any], Any]:
    """Save an MLflow model without pickle; returns it, loaded again.

    `path` is in a scratch folder. A traceable network becomes a `pt2` program, which needs no code of ours; any other
    is kept as the parts that `serve.py` builds it from, and its weights.
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
        weights = sum(tensor.nbytes for tensor in module.state_dict().values())
        require_room(path.parent, 2 * weights + ROOM)  # on a full disk torch would end the process
        mlflow.pytorch.save_model(module, str(path), serialization_format="pt2", **common)
    else:
        common["pip_requirements"] = _pinned(CODE_REQUIREMENTS)
        _save_as_code(path, common, config, dataset, task)
    program: Callable[[Any], Any] = mlflow.pyfunc.load_model(str(path)).predict
    if not np.array_equal(np.asarray(program(example)), expected):
        raise WorkError(
            f"the exported model of run {run_id} does not answer as the trained one does: it was not registered"
        )
    return program


def _save_as_code(
    path: Path, common: Mapping[str, Any], config: ExperimentConfig, dataset: Dataset, task: Task
) -> None:
    """Save what `serve.py` builds the network from, and this package's code."""
    import mlflow.pyfunc
    from safetensors.torch import save_file

    from assay.data.dataset import CARD
    from assay.train.checkpoint import weights_sha256

    package = Path(__file__).parents[1]
    folder = path.with_name("trained")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(resolved(config)))
    (folder / CARD).write_text(dataset.card.model_dump_json())
    weights = {key: tensor.contiguous() for key, tensor in task.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "model.sha256").write_text(weights_sha256(weights))
    mlflow.pyfunc.save_model(
        str(path),
        python_model=str(package / "tracking" / "serve.py"),
        artifacts={"trained": str(folder)},
        code_paths=[str(package)],
        **common,
    )


@contextmanager
def _mlflow_to_the_point() -> Iterator[None]:
    """Let MLflow save and load a model without a warning of torch's that nobody can act on, nor a list of all files.

    It lists those of all packages to know which package has which module, takes more than a second for it, and needs it
    only if a requirement is named after a module, which ours are not.
    """
    from mlflow.utils import requirements_utils

    kept = requirements_utils._MODULES_TO_PACKAGES
    requirements_utils._MODULES_TO_PACKAGES = kept or {}  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No complete tensor found")  # true of any views that share a tensor
            yield
    finally:
        requirements_utils._MODULES_TO_PACKAGES = kept


def _pinned(names: tuple[str, ...]) -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]
