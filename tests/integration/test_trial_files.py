"""Trials of a search over files, such as pretrained weights: each is recorded with its own, which may not change."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from assay.errors import InputError
from assay.tracking.runs import Claim
from assay.tune.journal import Journal
from assay.tune.search import Trial
from assay.tune.trial import begin
from assay.usecases.helpers.search_context import SearchContext
from tests.conftest import Project
from tests.support.searched import Searched


def test_trials_with_files_of_their_own_are_recorded_with_these(project: Project) -> None:
    names = ["one.safetensors", "two.safetensors"]
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        save_file(timm.create_model("test_resnet").state_dict(), project.root / name)
    experiment = {"task": {"name": "classification", "architecture": "timm:test_resnet", "image_size": 32}}
    block = {**experiment, "data": "digits", "train": {"epochs": 1, "batch_size": 256, "workers": 0}}
    searched = Searched(project)
    small = {**block, "task": {**experiment["task"], "weights": names[0]}}
    searched.text = searched.text.replace("experiments:\n", f"experiments:\n  small: {json.dumps(small)}\n", 1)
    searched.write(experiment="small", space={"task.weights": {"choice": [*names, "none"]}}, budget={"trials": 3})

    context, found = SearchContext.of("s", project.settings), []
    for number, name in enumerate((*names, "none")):
        trial = Trial(number, 0, {"task.weights": name}, None, 1)
        assignment = context.assign(Claim("s", project.root / "held", False), trial, ())
        assignment.folder.mkdir(parents=True)
        runner = begin(assignment.plain())
        assert "outcome" in runner.advance()
        runner.close()
        found.append(context.trial_provenance(context.entry(project.root / "held", trial)).tags)
    assert len({tags["files_sha256"] for tags in found}) == len({tags["inputs_sha256"] for tags in found}) == 3
    assert found[0]["files_sha256"] == context.base.tags["files_sha256"]

    journal = project.root / "journal"
    Journal(journal).append("search", **context.header())
    (project.root / names[1]).write_bytes((project.root / names[0]).read_bytes())
    with pytest.raises(InputError, match="files_sha256 has changed"):
        SearchContext.of("s", project.settings).require_same("S", journal)
    (project.root / names[1]).unlink()
    with pytest.raises(InputError, match=rf"task: the file {names[1]} cannot be read"):
        SearchContext.of("s", project.settings).inputs()
