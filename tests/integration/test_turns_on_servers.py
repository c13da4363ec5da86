"""Turns hold on whatever keeps the runs: here on an MLflow server and on Postgres; unit tests have them on SQLite."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assay.settings import Settings
from assay.tracking.tracker import Tracker
from tests.support.postgres import binaries, running_postgres
from tests.support.servers import free_port, start, stop
from tests.support.turns import take_turns

pytestmark = pytest.mark.thorough


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """An MLflow server; its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return bool(urllib.request.urlopen(f"{address}/health", timeout=2).status == 200)
        except OSError:
            return False

    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = start([sys.executable, "-m", "mlflow", "server", *store, *place], folder / "log", ready, dict(os.environ))
    try:
        yield address
    finally:
        stop(server)


@contextmanager
def postgres(_folder: Path) -> Iterator[str]:
    if binaries() is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    with running_postgres() as server:
        yield server.create("turns")


@pytest.mark.parametrize("kept", [mlflow_server, postgres])
def test_no_two_have_a_turn_at_once(kept: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").touch()
    with kept(tmp_path) as address:  # type: ignore[operator]
        monkeypatch.setenv("ASSAY_TRACKING_URI", address)
        most, order = take_turns([Tracker(Settings(project=tmp_path)) for _ in range(4)], each=3)
        assert most == 1
        assert len(order) == 12
        assert order == sorted(order)
        assert Tracker(Settings(project=tmp_path)).tickets() == []
