"""Where a training finds its data, and whether its settings name places that every node of its cluster can reach."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from assay.data.dataset import Dataset, open_dataset
from assay.data.version import recorded_hash
from assay.errors import InputError
from assay.log import Log
from assay.services.stores import sqlite_file
from assay.settings import Settings
from assay.storage.dataset_versions import open_version
from assay.tracking.provenance import git_commit
from assay.workers import nodes


def open_or_fetch_dataset(name: str, settings: Settings, log: Log) -> Dataset:
    """Open the dataset version that `dvc.lock` records: the project's, or where that is gone, as in a job, one
    from DVC's cache or remote.

    Raises:
        InputError: it is nowhere, or `data/NAME` differs from what was recorded; the line names the fix.
    """
    version, folder = recorded_hash(settings.root, name), settings.dataset_folder(name)
    if version is None or (folder.exists() and not settings.packaged):
        version = open_dataset(settings.root, name, folder).hash
    return open_version(settings, name, version, log)


def require_repository(root: Path) -> None:
    """Raises `InputError` if the project is not in a git repository with a commit, or is not a DVC repository."""
    git_commit(root)
    if not (root / ".dvc").is_dir():
        raise InputError(f"{root}: not a DVC repository: run `dvc init`, so that datasets have versions")


def require_cluster(settings: Settings, searching: bool) -> None:
    """Refuse, before anything starts, places that only one node of the cluster can reach. Ray must be connected.

    Args:
        searching: a search's trials share its folder, so object storage alone is not enough.

    Raises:
        InputError: the line names the setting and the fix.
    """
    several = bool(settings.ray_address) and nodes.node_count() > 1
    if not several and not settings.packaged:
        return
    _require_tracking(settings, several)
    if settings.storage is None:
        raise InputError(
            "ASSAY_STORAGE is not set, so runs would be kept on one node only: set it on every node to a shared folder "
            "or to s3://bucket/prefix"
        )
    if searching and settings.remote_runs is not None:
        raise InputError(
            f"ASSAY_STORAGE {settings.remote_runs}: the trials of a search need a shared folder: "
            "set it to a folder that all nodes share"
        )
    if settings.ray_address:
        shared = {} if settings.remote_runs else {"ASSAY_STORAGE": settings.runs}
        if (place := _folder(settings.artifacts)) is not None and not _on_server(settings):
            shared["ASSAY_ARTIFACT_URI"] = place
        nodes.require_nodes(shared, settings.remote_runs)


def _require_tracking(settings: Settings, several: bool) -> None:
    """Runs and artifacts must outlive the node and the job's package."""
    database = sqlite_file(settings.tracking)
    if database is not None and (several or database.is_relative_to(settings.root)):
        raise InputError(
            f"ASSAY_TRACKING_URI: the SQLite file {database} is on one node only: set it on every node to the "
            "address of an MLflow server, or to postgresql+psycopg2://user:password@host/database"
        )
    if settings.artifact_uri is None and not _on_server(settings):
        raise InputError(
            "ASSAY_ARTIFACT_URI is not set, so artifacts would be kept on one node only: set it on every node to "
            "s3://bucket/prefix or to a shared folder"
        )


def _on_server(settings: Settings) -> bool:
    """Whether an MLflow server decides where artifacts go."""
    return settings.artifact_uri is None and settings.tracking.startswith(("http://", "https://"))


def _folder(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(uri).absolute() if not parts.scheme else None
