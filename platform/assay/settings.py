"""Where things are: the project's folders and the addresses of services. Read from the environment only."""

from __future__ import annotations

import os
import tempfile
from functools import cached_property
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from assay.state import ARTIFACTS, PACKAGE, RUNS, TRACKING_DATABASE, find_project, state_folder


class Settings(BaseSettings):
    """Environment variables, each with the prefix `ASSAY_`; unset ones mean "on this machine, below `.assay/`"."""

    model_config = SettingsConfigDict(env_prefix="ASSAY_", frozen=True, extra="ignore", env_ignore_empty=True)

    project: Path | None = None
    tracking_uri: str | None = Field(None, validation_alias=AliasChoices("ASSAY_TRACKING_URI", "MLFLOW_TRACKING_URI"))
    artifact_uri: str | None = None
    ray_address: str | None = None
    cluster: str | None = Field(None, description="a Ray dashboard, to which training and searches are submitted")
    wait: bool = Field(False, description="wait for a cluster that has too few slots, instead of refusing")
    storage: str | None = Field(None, description="where runs are kept: a folder that all nodes share, or s3://...")
    data_cache: Path | None = Field(None, description="where a node keeps the dataset versions that it fetched")
    data_cache_gb: float = Field(50.0, gt=0, description="the most that they may take together")
    webhook: SecretStr | None = Field(None, description="an address that is notified of failures and promotions")

    @cached_property
    def root(self) -> Path:
        """The project: the folder with `params.yaml`, here or above."""
        return self.project.resolve() if self.project is not None else find_project()

    @property
    def state(self) -> Path:
        """All local state, git-ignored."""
        return state_folder(self.root)

    @property
    def packaged(self) -> bool:
        """Whether the project is the package of a submitted job, which is removed when the job ends."""
        return (self.root / PACKAGE).is_file()

    @property
    def params_file(self) -> Path:
        return self.root / "params.yaml"

    @property
    def runs(self) -> Path:
        """One folder a run: checkpoints, spool, progress. Shared by all workers."""
        if self.storage is None or self.remote_runs is not None:
            return (self.state / RUNS).resolve()
        return Path(self.storage).resolve()

    @property
    def remote_runs(self) -> str | None:
        """Where runs are kept if that is object storage, `s3://bucket/prefix`; None if it is a folder."""
        return self.storage.rstrip("/") if self.storage is not None and self.storage.startswith("s3://") else None

    @property
    def without_ray(self) -> Settings:
        """The same for what needs no Ray, and so joins none that could end."""
        return self.model_copy(update={"ray_address": None})

    @property
    def data_cache_folder(self) -> Path:
        """Where this node keeps the dataset versions that submitted jobs fetched."""
        return self.data_cache or Path(tempfile.gettempdir()) / f"assay-data-{os.getuid()}"

    @property
    def tracking(self) -> str:
        return self.tracking_uri or f"sqlite:///{self.state / TRACKING_DATABASE}"

    @property
    def artifacts(self) -> str:
        return self.artifact_uri or (self.state / ARTIFACTS).as_uri()

    def dataset_folder(self, name: str) -> Path:
        return self.root / "data" / name
