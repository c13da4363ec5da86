"""Where a job finds its data, and whether the places that it is to use can work on the cluster that it runs on."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from assay.data.dataset import Dataset, open_dataset, read_card
from assay.data.version import recorded_hash
from assay.errors import InputError
from assay.log import Log
from assay.services.stores import sqlite_file
from assay.settings import Settings
from assay.storage.dataset_fetch import fetch_dataset
from assay.tracking.provenance import PACKAGE, git_commit
from assay.workers import nodes


def opened(name: str, settings: Settings, log: Log) -> Dataset:
    """The dataset version that `dvc.lock` records: of the project; on a cluster's node, fetched from the DVC remote.

    Raises:
        InputError: it is not here or not what was recorded; one line with the mend.
    """
    version = recorded_hash(settings.root, name)
    if version is None or not _is_package(settings):
        return open_dataset(settings.root, name, settings.dataset_folder(name))
    folder = fetch_dataset(settings, name, version, log)
    return Dataset(folder, read_card(folder, name), version)


def require_repository(root: Path) -> None:
    git_commit(root)
    if not (root / ".dvc").is_dir():
        raise InputError(f"{root}: no DVC repository: run `dvc init`, so that datasets have versions")


def project_for_nodes(settings: Settings) -> str:
    """What a job's workers are told of the project: its folder, where they may be on other nodes; else nothing."""
    return str(settings.root) if settings.ray_address else ""


def require_cluster(settings: Settings, searching: bool) -> None:
    """Refuse, before anything starts, places that only one node of a cluster can reach. Needs a connected Ray there.

    Args:
        searching: a search's trials share its folder, so object storage alone is not enough.

    Raises:
        InputError: one line that names the setting, with the mend.
    """
    several = bool(settings.ray_address) and nodes.node_count() > 1
    if not several and not _is_package(settings):
        return
    _require_tracking(settings, several)
    if settings.storage is None:
        raise InputError(
            "ASSAY_STORAGE is not set: runs would lie on one node only: set it on every node to a folder that all "
            "share, or to s3://bucket/prefix"
        )
    if searching and settings.remote_runs is not None:
        raise InputError(
            f"ASSAY_STORAGE {settings.remote_runs}: the trials of a search share a folder: "
            "set it to a folder that all nodes share"
        )
    if settings.ray_address:
        shared = {} if settings.remote_runs else {"ASSAY_STORAGE": settings.runs}
        if (place := _folder(settings.artifacts)) is not None and not _on_server(settings):
            shared["ASSAY_ARTIFACT_URI"] = place
        nodes.require_nodes(shared, settings.remote_runs)


def _is_package(settings: Settings) -> bool:
    """Whether this is a submitted job's package, which ends with the job."""
    return (settings.root / PACKAGE).is_file()


def _require_tracking(settings: Settings, several: bool) -> None:
    """The record must outlive the node, and the job's package."""
    database = sqlite_file(settings.tracking)
    if database is not None and (several or database.is_relative_to(settings.root)):
        raise InputError(
            f"ASSAY_TRACKING_URI: the SQLite file {database} lies on one node only: set it on every node to the "
            "address of an MLflow server, or to postgresql+psycopg2://user:password@host/database"
        )
    if settings.artifact_uri is None and not _on_server(settings):
        raise InputError(
            "ASSAY_ARTIFACT_URI is not set: artifacts would lie on one node only: set it on every node to "
            "s3://bucket/prefix, or to a folder that all share"
        )


def _on_server(settings: Settings) -> bool:
    """Whether an MLflow server says where artifacts go."""
    return settings.artifact_uri is None and settings.tracking.startswith(("http://", "https://"))


def _folder(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(uri).absolute() if not parts.scheme else None
