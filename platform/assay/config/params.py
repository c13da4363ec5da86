"""All of `params.yaml` in its typed form. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from assay.config.dataset import DatasetConfig
from assay.config.experiment import ExperimentConfig, replaced
from assay.config.schedule import TARGETS, ScheduleConfig
from assay.config.schema import Frozen, Name, NestedError, validate
from assay.config.search import SearchConfig
from assay.errors import InputError, known


class Params(Frozen):
    """All of `params.yaml`."""

    datasets: dict[Name, DatasetConfig] = {}
    experiments: dict[Name, ExperimentConfig] = {}
    presets: dict[Name, dict[Name, dict[str, Any]]] = Field(
        {}, description="named variants of an experiment: dotted keys and their values"
    )
    searches: dict[Name, SearchConfig] = {}
    schedules: dict[Name, ScheduleConfig] = {}

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        missing = [
            (f"experiments.{name}.data", known("dataset", e.data, list(self.datasets)))
            for name, e in self.experiments.items()
            if e.data not in self.datasets
        ]
        missing += [
            (f"presets.{name}", known("experiment", name, list(self.experiments)))
            for name in self.presets
            if name not in self.experiments
        ]
        missing += [
            (f"searches.{name}.experiment", known("experiment", s.experiment, list(self.experiments)))
            for name, s in self.searches.items()
            if s.experiment not in self.experiments
        ]
        missing += [
            (f"schedules.{name}.{TARGETS[s.flow]}", line)
            for name, s in self.schedules.items()
            if (line := self._missing_target(s)) is not None
        ]
        if missing:
            raise NestedError(missing)
        return self

    def _missing_target(self, schedule: ScheduleConfig) -> str | None:
        """One line if the target of a schedule does not exist."""
        kind = "search" if schedule.search is not None else "experiment"
        names = list(self.searches if schedule.search is not None else self.experiments)
        return None if schedule.target in names else known(kind, schedule.target, names)

    def schedule(self, name: str) -> ScheduleConfig:
        if name not in self.schedules:
            raise InputError(f"params.yaml: {known('schedule', name, list(self.schedules))}")
        return self.schedules[name]

    def preset(self, experiment: str, name: str) -> ExperimentConfig:
        """An experiment with the settings of one of its presets."""
        presets = self.presets.get(experiment, {})
        if name not in presets:
            raise InputError(f"params.yaml: experiment {experiment!r}: {known('preset', name, list(presets))}")
        return replaced(
            self.experiment(experiment), presets[name].items(), f"params.yaml: presets.{experiment}.{name}:"
        )

    def experiment(self, name: str) -> ExperimentConfig:
        if name not in self.experiments:
            raise InputError(f"params.yaml: {known('experiment', name, list(self.experiments))}")
        return self.experiments[name]

    def search(self, name: str) -> SearchConfig:
        if name not in self.searches:
            raise InputError(f"params.yaml: {known('search', name, list(self.searches))}")
        return self.searches[name]

    def dataset(self, name: str) -> DatasetConfig:
        if name not in self.datasets:
            raise InputError(f"params.yaml: {known('dataset', name, list(self.datasets))}")
        return self.datasets[name]


def load_params(path: Path) -> Params:
    """Read and check `params.yaml`.

    Raises:
        InputError: the file is missing, is not valid YAML, or does not fit; one line for each error.
    """
    return parse_params(read_yaml(path), path.name)


def read_yaml(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run this inside an Assay project") from None
    except (YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise InputError(f"{path.name}: not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"{path.name}: must be a mapping with the keys {', '.join(Params.model_fields)}")
    return data


def parse_params(data: Mapping[str, Any], origin: str) -> Params:
    return validate(Params, data, origin)
