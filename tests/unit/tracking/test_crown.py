"""A kill between the calls of a promotion or a rollback: who was champion, and who was not, is never told wrong."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from assay.settings import Settings
from assay.tracking.registry import ROLLED_BACK, Registry
from assay.tracking.runs import claim
from assay.tracking.tracker import Tracker
from tests.unit.tracking.test_runs import provenance

CHANGES = ("set_model_version_tag", "set_registered_model_alias", "delete_model_version_tag")
MOST = 6
"""More than any of the commands makes."""


class Killed(BaseException):
    """As far as the store can tell, a kill."""


@dataclass(frozen=True)
class Model:
    """A registered model of a store that other tests share."""

    registry: Registry
    name: str

    def crown(self, number: str) -> None:
        self.registry.crown(self.version(number), {}, self.registry.champion(self.name), lambda: None)

    def rollback(self) -> str:
        return str(self.registry.rollback(self.name, lambda: None)[0].version)

    def version(self, number: str) -> ModelVersion:
        return self.registry.get(self.name, number)

    @property
    def champion(self) -> str:
        found = self.registry.champion(self.name)
        assert found is not None
        return str(found.version)


@pytest.fixture
def model(settings: Settings, tracker: Tracker) -> Model:
    """Three versions, of which none is champion."""
    registry, name = Registry(tracker), f"m-{secrets.token_hex(4)}"
    with claim(settings, tracker, name, provenance(), None, False) as held:
        registry._client.create_registered_model(name)
        for _ in range(3):
            registry._client.create_model_version(name, tracker.get(held.run_id).info.artifact_uri, held.run_id)
    return Model(registry, name)


@contextmanager
def killed_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    left = [calls]

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(MlflowClient, name)

        def call(*words: Any, **named: Any) -> Any:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return real(*words, **named)

        return call

    with monkeypatch.context() as patch:
        for name in CHANGES:
            patch.setattr(MlflowClient, name, counted(name))
        try:
            yield
        except Killed:
            return


@pytest.mark.parametrize("calls", range(MOST))
def test_only_a_version_that_had_the_alias_counts_as_a_champion_of_before(
    model: Model, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    model.crown("1")
    with killed_after(calls, monkeypatch):
        model.crown("2")
    was = model.champion
    model.crown("3")
    assert model.registry.had_alias_before(model.version("2"), model.version("3")) == (was == "2")
    assert model.rollback() == was


@pytest.mark.parametrize("calls", range(MOST))
def test_the_same_command_finishes_the_return_of_what_was_rolled_back(
    model: Model, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    for number in ("1", "2"):
        model.crown(number)
    model.rollback()
    with killed_after(calls, monkeypatch):
        model.crown("2")
    model.crown("2")
    assert model.champion == "2"
    assert ROLLED_BACK not in model.version("2").tags
    model.crown("1")
    assert model.rollback() == "2"


@pytest.mark.parametrize("calls", range(MOST))
def test_the_same_command_finishes_a_rollback(model: Model, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    for number in ("1", "2", "3"):
        model.crown(number)
    with killed_after(calls, monkeypatch):
        model.rollback()
    if model.champion == "3":
        model.rollback()
    assert model.champion == "2"
    assert model.rollback() == "1"
