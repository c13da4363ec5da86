"""A project that was moved or copied: MLflow keeps the places of artifacts as absolute addresses."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from assay.errors import InputError
from assay.owner import Owner
from assay.services.stores import sqlite_file
from assay.settings import Settings
from assay.state import ARTIFACTS, STATE, TRACKING_DATABASE
from assay.train.folder import LOCK

PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
"""The columns of MLflow's store that hold addresses of artifacts."""
OWN = re.compile(rf"(file://.*/{re.escape(STATE)}/{ARTIFACTS})/[^/]+/?")
"""The address that an experiment has in the store of its own project."""


def follow_move(settings: Settings) -> None:
    """Let a project's own store name the artifacts where the project is now, if that was moved or copied.

    Raises:
        InputError: a process works on a run under the old address, or may do so as far as anybody can tell.
    """
    database = sqlite_file(settings.tracking)
    if database != settings.state / TRACKING_DATABASE or settings.artifact_uri or not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as store:
        if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'logged_models'").fetchone():
            return  # its schema is not made yet
        found = store.execute("SELECT artifact_location FROM experiments").fetchall()
        addresses = {match[1] for (text,) in found if (match := OWN.fullmatch(text or ""))} - {settings.artifacts}
        for old in (address for address in addresses if not _is_here(address, settings)):
            if not _path(old).exists() and (doing := _at_work(store, settings)) is not None:
                raise InputError(f"the project was at {_path(old).parents[1]}, and {doing}")
            store.execute("BEGIN IMMEDIATE")
            for table, column in PLACES:
                store.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608
                    (f"{settings.artifacts}/", len(old) + 2, len(old) + 1, f"{old}/"),
                )
            store.execute("COMMIT")


def _path(address: str) -> Path:
    return Path(unquote(urlsplit(address).path))


def _is_here(address: str, settings: Settings) -> bool:
    """Whether an address is another name of the project's own folder, as through a symbolic link."""
    here, there = _path(settings.artifacts), _path(address)
    return there.exists() and here.exists() and there.samefile(here)


def _at_work(store: sqlite3.Connection, settings: Settings) -> str | None:
    """Which process works on a run, or may do so, and what to do then. The trials of a search are its process's."""
    rows = store.execute(
        "SELECT r.run_uuid, t.value FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
        "WHERE r.status = 'RUNNING' AND r.lifecycle_stage = 'active' AND t.key = 'assay.owner' AND NOT EXISTS "
        "(SELECT 1 FROM tags p WHERE p.run_uuid = r.run_uuid AND p.key = 'mlflow.parentRunId')"
    )
    for run_id, text in rows:
        owner, folder = Owner.parse(text), settings.runs / run_id
        if owner is None:
            continue
        if owner.life == "alive":  # asked first: a move to another disk copies the lock that the process holds
            return f"process {owner.pid} still works on run {run_id}: end it, or move the project back"
        if folder.exists():
            if _is_held(folder):
                return f"another process still works on run {run_id}: end it, or move the project back"
        elif owner.life == "elsewhere":
            call = f"MlflowClient('sqlite:///{STATE}/{TRACKING_DATABASE}').set_terminated('{run_id}', 'KILLED')"
            return (
                f"a process of another machine may still work on run {run_id}: end it; if there is none, "
                f'run `python -c "from mlflow import MlflowClient; {call}"` in {settings.root}'
            )
    return None


def _is_held(folder: Path) -> bool:
    """Whether a process holds the lock in a run's folder, which stays one lock where the folder is moved."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
