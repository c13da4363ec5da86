"""`assay tune --apply`: a trial of a search becomes an experiment in `params.yaml`, for you to review."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from assay.config.experiment import ExperimentConfig, parse_experiment, replaced
from assay.config.params import load_params, read_yaml
from assay.config.params_file import Block, add_block
from assay.config.schema import resolved
from assay.errors import InputError
from assay.files import write_atomic
from assay.settings import Settings


def apply_trial(record: Mapping[str, Any], trial: int | None, settings: Settings) -> dict[str, Any]:
    """Add `experiments.<search>` with the values of the best trial, or of another trial of the front.

    Nothing else in the file changes; `git diff` shows the addition. Applying the same trial again does nothing.

    Raises:
        InputError: no such trial on the front, or a different experiment has that name.
    """
    name, path = record["search"], settings.params_file
    front = {entry["trial"]: entry for entry in record["front"]}
    chosen = record["best"]["trial"] if trial is None else trial
    if chosen not in front:
        raise InputError(f"--trial {chosen}: not on the front; choose from {', '.join(map(str, front))}")
    params = load_params(path)
    values = {**params.search(name).set, **front[chosen]["config"]}
    wanted = replaced(params.experiment(record["experiment"]), values.items(), f"trial {chosen}:")
    done = {"experiment": name, "trial": chosen, "file": path.name}
    if name in params.experiments:
        if params.experiments[name] == wanted:
            return {**done, "changed": False}
        raise InputError(f"params.yaml: experiments.{name} already exists with other settings: rename or remove it")
    block = trial_block(read_yaml(path)["experiments"][record["experiment"]], values, wanted)
    text = path.read_text(encoding="utf-8")
    write_atomic(path, add_block(text, "experiments", name, Block(block)).encode())
    return {**done, "changed": True}


def trial_block(block: Mapping[str, Any], values: Mapping[str, Any], wanted: ExperimentConfig) -> dict[str, Any]:
    """The block of `wanted` for `params.yaml`: `block`, the experiment that was searched, and what differs."""
    new: dict[str, Any] = copy.deepcopy(dict(block))
    whole = resolved(wanted)
    for key in values:
        parts = key.split(".")
        depth = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
        node, source = new, whole
        for part in parts[: depth - 1]:
            source = source[part]
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        node[parts[depth - 1]] = source[parts[depth - 1]]  # a list is written whole
    if parse_experiment(new, "experiment") != wanted:
        raise AssertionError(f"{new} is not {whole}")
    return new
