"""Whatever somebody puts into a file of Assay's own, it is a line for people or none at all, never a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from assay.data.report import REPORT, read_report
from assay.data.version import _read_cache
from assay.errors import InputError
from assay.files import read_json
from assay.owner import Owner
from assay.redaction import secrets_of
from assay.services import running
from assay.services.credentials import ray_token, read_secrets
from assay.services.ports import kept_ports
from assay.settings import Settings
from assay.state import FLOW_PROCESSES, KNOWN_STORES, PORTS, SERVICES_STATUS, STATE
from assay.storage.attempts import held_attempt
from assay.storage.dvc_remote import DamagedListing, parse_listing
from assay.tracking.known_store import _known
from assay.tracking.runs import CREATING, reap
from assay.tracking.tracker import Tracker
from assay.train.checkpoint import MANIFEST, DamagedCheckpoint, read_checkpoint
from assay.train.folder import ATTEMPT, FAILURE, OUTCOME, OUTCOME_NEEDS
from assay.workers.joined import JOINED, joined
from assay.workers.on_ray import raise_recorded
from pipelines.runtime.flow_processes import registered_processes
from pipelines.runtime.workspace import _holder

DAMAGE = {
    "empty": b"", "no text": b"\xff", "cut": b'{"ready": tr', "a list": b"[]", "a number": b"7", "a text": b'"x"',
    "nothing": b"null", "deep": b"[" * 100_000, "deeper": b'{"a":' * 100_000, "lacking": b"{}",
    "of other types": b'{"ready": true, "addresses": 3, "owner": 7, "pid": Infinity, "mlflow": Infinity}',
    "half": b'{"ready": true, "addresses": {"mlflow": "", "prefect": "", "ray": "", "dashboard": ""}, "services": 3}',
    "texts": b'["reason", "change"]',
}  # fmt: skip

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "outcome": (OUTCOME, lambda folder: read_json(folder / OUTCOME, "again", OUTCOME_NEEDS)),
    "failure": (FAILURE, lambda folder: raise_recorded(Exception(), folder)),
    "owner": ("owner", lambda folder: Owner.parse((folder / "owner").read_bytes())),
    "stores": (f"{STATE}/{KNOWN_STORES}", lambda folder: _known(Settings(project=folder)).get("x")),
    "services": (SERVICES_STATUS, lambda folder: (running.running(folder), running.described(folder))),
    "ports": (PORTS, kept_ports),
    "token": ("token", lambda folder: ray_token(folder / "token")),
    "credentials": ("login", lambda folder: read_secrets(folder / "login")),
    "secrets": ("token", lambda folder: secrets_of({"RAY_AUTH_TOKEN_PATH": str(folder / "token")})),
    "joined": (f"run/{JOINED}", lambda folder: joined(folder, "head:1")),
    "attempt": (ATTEMPT, held_attempt),
    "manifest": (MANIFEST, read_checkpoint),
    "report": (REPORT, lambda folder: read_report(folder, Mock(**{"rejected.count": 1, "converted.count": 1}))),
    "hashes": ("hashes", lambda folder: _read_cache(folder / "hashes")),
    "listing": ("listing", lambda folder: parse_listing((folder / "listing").read_bytes(), "v.dir")),
    "flows": (f"{STATE}/{FLOW_PROCESSES}/a.json", lambda folder: list(registered_processes(folder))),
    "holder": ("lock", lambda folder: _holder(os.open(folder / "lock", os.O_RDONLY))),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_is_named_or_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, damage: str
) -> None:
    monkeypatch.setattr(running, "supervised", lambda _: True)
    name, read = READERS[reader]
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "params.yaml").touch()
    file.write_bytes(DAMAGE[damage])
    file.chmod(0o600)
    with suppress(InputError, DamagedCheckpoint, DamagedListing):  # each of them is one line for people
        read(tmp_path)


@pytest.mark.parametrize("content", [b"\xff", b"", b"0" * 16])
def test_a_damaged_note_of_a_run_that_is_being_made_keeps_nobody_from_training(
    settings: Settings, tracker: Tracker, content: bytes
) -> None:
    settings.runs.mkdir(parents=True, exist_ok=True)
    (settings.runs / CREATING).write_bytes(content)
    reap(settings, tracker)
    assert not (settings.runs / CREATING).exists()


def test_a_damaged_outcome_keeps_nobody_from_training(settings: Settings, tracker: Tracker) -> None:
    for number, content in enumerate(DAMAGE.values()):
        (settings.runs / str(number)).mkdir(parents=True, exist_ok=True)
        (settings.runs / str(number) / OUTCOME).write_bytes(content)
    reap(settings, tracker)
