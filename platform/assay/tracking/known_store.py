"""Remembers that a tracking store has runs of this project, so that an emptied one is not taken for a new one."""

from __future__ import annotations

from contextlib import suppress

from assay.errors import InputError, WorkError
from assay.files import read_json, write_json
from assay.redaction import hide_login
from assay.services.running import running
from assay.services.stores import sqlite_file
from assay.settings import Settings
from assay.state import KNOWN_STORES
from assay.tracking.tracker import Tracker


def known(tracker: Tracker) -> Tracker:
    """The same tracker; refuses a store without a single run if this project has recorded some there.

    A fresh clone remembers none, whatever DVC has pulled into its `results/`.

    Raises:
        WorkError: names the store, a run that should be there, and the fix.
    """
    settings = tracker.settings
    run_id = _known(settings).get(_store(settings))
    if run_id is not None and not tracker.has_runs():
        raise WorkError(
            f"the tracking store {hide_login(settings.tracking)} is empty, though this project has recorded runs "
            f"there, {run_id} among them: restore it; or, to begin anew, remove {settings.state / KNOWN_STORES}"
        )
    return tracker


def remember_store(settings: Settings, run_id: str) -> None:
    """Note that the store has a run; the first one is enough."""
    known = _known(settings)
    if _store(settings) not in known:
        write_json(settings.state / KNOWN_STORES, {**known, _store(settings): run_id})


def _known(settings: Settings) -> dict[str, str]:
    """A run of each store, by its address; none if the file is missing or damaged: it only adds a check."""
    with suppress(OSError, InputError):
        return read_json(settings.state / KNOWN_STORES, "")
    return {}


def _store(settings: Settings) -> str:
    """The address of the store, the same wherever the project is moved to, and while its services are up."""
    services = running(settings.state)
    if services is not None and settings.tracking == services.mlflow:
        return "the project's own"
    database = sqlite_file(settings.tracking)
    if database is not None and database.is_relative_to(settings.state):
        return "the project's own"
    return hide_login(settings.tracking)
