"""One experiment of each family, submitted with 2 workers to a cluster of 2 nodes with Postgres and object storage."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.common import environment, figure, fresh_clone, run
from tests.support.cluster_site import ClusterSite, cluster_site

FAMILIES = {
    "digits": ("train.epochs=4",),
    "digit_scenes": ("train.epochs=1",),
    "digits_gan": ("train.epochs=4",),
    "paint": ("train.epochs=2",),
}
"""Short trainings: whether it works is what is measured, not how good it gets."""
DATASETS = ("digits", "digit_scenes", "paint")


def main(*names: str) -> None:
    done = 0
    with fresh_clone() as clone:
        run(clone, "dvc", "repro", "-q", *(f"data@{name}" for name in DATASETS))
        with cluster_site(clone, environment(clone), DATASETS, workers=2) as site:
            for name in names or FAMILIES:
                done += _one(site, name)
    figure("families on 2 nodes", complete=done, of=len(names or FAMILIES))


def _one(site: ClusterSite, name: str) -> bool:
    """Train, evaluate and register on the cluster; whether metrics, pictures and a model are there."""
    began = time.monotonic()
    assignments = [word for value in ("train.workers=2", *FAMILIES[name]) for word in ("--set", value)]
    trained, log = site.submit("train", name, *assignments)
    evaluated, _ = site.submit("evaluate", trained["run_id"])
    registered, _ = site.submit("register", trained["run_id"])
    kept = [Path(key).name for key in site.s3.objects("artifacts/") if trained["run_id"] in key]
    pictures = [key for key in kept if key.endswith(".png")]
    on_both = log.count("starting 2 workers on cpu, 1 threads each") == 1
    whole = bool(evaluated["metrics"]) and len(pictures) > 1 and registered["version"] == "1" and on_both
    figure(
        f"{name} on 2 nodes",
        complete=whole,
        seconds=round(time.monotonic() - began, 1),
        metrics=evaluated["metrics"],
        pictures=len(pictures),
        version=registered["version"],
        decision=registered["decision"],
    )
    return whole
