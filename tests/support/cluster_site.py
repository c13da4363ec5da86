"""A project, a cluster of nodes for it, and the servers beside them: Postgres, object storage, the DVC remote in it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.nodes import BIN, Cluster, network, running_cluster
from tests.support.postgres import Postgres, running_postgres
from tests.support.s3 import BUCKET, ObjectStorage, running_s3


@dataclass
class ClusterSite:
    """What a user has: the project at `root`, `base` as environment, and what belongs to the cluster."""

    root: Path
    base: Mapping[str, str]
    cluster: Cluster
    postgres: Postgres
    s3: ObjectStorage

    @property
    def places(self) -> dict[str, str]:
        """What every node is told."""
        return dict(self.cluster.environment)

    @property
    def environment(self) -> dict[str, str]:
        """Of a laptop that may use the cluster, and shares the tracking store with it."""
        shared = {name: self.places[name] for name in ("ASSAY_TRACKING_URI", "ASSAY_ARTIFACT_URI")}
        return {**self.base, **self.s3.environment, **self.cluster.access, **shared}

    def assay(self, *words: str, code: int = 0, **more: str) -> tuple[dict[str, Any], str]:
        """What a verb prints with --json, and what it says."""
        done = subprocess.run(
            [BIN / "assay", *words], cwd=self.root, env=self.environment | more, capture_output=True, text=True
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr

    def submission(self, *words: str) -> list[str]:
        """The words of a submitted job."""
        return ["submit", "--address", self.cluster.dashboard, "--json", "--", *words]

    def submit(self, *words: str, code: int = 0) -> tuple[dict[str, Any], str]:
        return self.assay(*self.submission(*words), code=code)


@contextmanager
def cluster_site(root: Path, base: Mapping[str, str], datasets: Sequence[str], workers: int) -> Iterator[ClusterSite]:
    """The datasets are those of the project whose versions the nodes shall fetch."""
    with network() as made, running_postgres(made.host) as postgres, running_s3(made.host) as s3:
        environment = {
            "ASSAY_TRACKING_URI": postgres.url,
            "ASSAY_ARTIFACT_URI": f"s3://{BUCKET}/artifacts",
            "ASSAY_STORAGE": f"s3://{BUCKET}/runs",
            **s3.environment,
        }
        with running_cluster(environment, made, workers) as cluster:
            site = ClusterSite(root, base, cluster, postgres, s3)
            dvc = [sys.executable, "-m", "dvc"]
            for command in (
                ["remote", "add", "--quiet", "--default", "team", f"s3://{BUCKET}/dvc"],
                ["push", "--quiet", *(f"data@{name}" for name in datasets)],
            ):
                subprocess.run([*dvc, *command], cwd=root, env=site.environment, check=True, capture_output=True)
            yield site
