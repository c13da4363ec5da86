"""A store that goes away costs a run in object storage nothing but time, and says so."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from assay.errors import InputError, Unavailable
from assay.storage import run_mirror
from assay.storage.attempts import whole
from assay.storage.object_store import ObjectStore
from assay.storage.run_mirror import Sender, sending
from assay.train.folder import OUTCOME, SENT, STOP
from tests.support.mirror import attempt, loaded, place, record, save, sender, steps
from tests.support.servers import wait_for


def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without a server; the pauses between the client's tries, up to 20 s, are left out."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))


def test_wrong_places_are_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="bucket 'nowhere' does not exist"):
        ObjectStore("s3://nowhere/x").list()
    with pytest.raises(InputError, match="must be a folder or s3://bucket/prefix"):
        ObjectStore("gs://b/x")
    nobody_listens(monkeypatch)
    with pytest.raises(Unavailable, match=f"{bucket} does not answer"):
        ObjectStore(bucket).list()


class Away:
    """A store that fails in every way, for as long as it is `down`; its clients read the credentials anew."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.down = True
        self.errors = itertools.cycle([Unavailable("does not answer"), InputError("refused"), OSError(28, "no room")])
        sync = Sender._sync

        def failing(end: Sender) -> None:
            if self.down:
                raise next(self.errors)
            sync(end)

        monkeypatch.setattr(Sender, "_sync", failing)
        monkeypatch.setattr(run_mirror, "SECONDS", 0.01)
        monkeypatch.setattr(run_mirror, "LONGEST_SECONDS", 0.02)


def test_the_end_waits_for_the_store_and_says_so(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away, said = Away(monkeypatch), list[str]()

    def log(line: str) -> None:
        said.append(line)
        away.down = "waiting for it" not in line

    with sending(bucket, attempt(1), tmp_path / "a", log):
        record(tmp_path / "a", 1)
        save(tmp_path / "a", 1)
        (tmp_path / "a" / OUTCOME).write_text("{}")
        wait_for("whatever it is to be said", lambda: said, 20)
    assert len(said) == 2
    assert f"waiting for it, with everything safe in {tmp_path / 'a'}" in said[1]
    assert (tmp_path / "a" / SENT).exists()
    sender(bucket, tmp_path / "b", 2)
    assert (steps(tmp_path / "b"), loaded(tmp_path / "b")) == ([1], (1, 1.0))


def test_what_cannot_be_brought_at_the_end_is_an_error_and_stays(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Away(monkeypatch)
    monkeypatch.setattr(run_mirror, "PATIENCE_SECONDS", 0.05)
    one = sender(bucket, tmp_path / "a")
    one.start()
    record(tmp_path / "a", 1)
    with pytest.raises(
        Unavailable, match=f"the run is safe in {tmp_path / 'a'} on .*, where the same command continues"
    ):
        one.close()
    assert steps(tmp_path / "a") == [1]
    assert not (tmp_path / "a" / SENT).exists()


def test_a_run_that_cannot_be_saved_elsewhere_for_long_says_so_and_stops(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, said = Away(monkeypatch), list[str]()
    monkeypatch.setattr(run_mirror, "UNSAVED_SECONDS", 0.1)
    one = sender(bucket, tmp_path / "a", log=said.append)
    one.start()
    record(tmp_path / "a", 1)
    save(tmp_path / "a", 1)
    wait_for("the request to stop", (tmp_path / "a" / STOP).exists, 20)
    with pytest.raises(Unavailable, match="the run is safe in"):
        one.close()
    assert [line for line in said if "no checkpoint has reached" in line]
    away.down = False
    again = sender(bucket, tmp_path / "a", 2)  # the next command on this node
    assert loaded(tmp_path / "a") == (1, 1.0)
    again.sync()
    assert whole(place(bucket, 2)) == ["step-0000000001"]


def test_a_store_that_takes_nothing_stops_no_training_that_has_nothing_new(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sender(bucket, tmp_path / "a")
    save(tmp_path / "a", 1)
    one.sync()
    monkeypatch.setattr(run_mirror, "UNSAVED_SECONDS", -1.0)
    for _ in range(3):
        one._watch()
    assert not (tmp_path / "a" / STOP).exists()


def test_credentials_that_were_renewed_are_found(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(bucket)
    store.put("a", b"1")
    before = store.client

    class Expired:
        def __getattr__(self, name: str) -> Any:
            raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "it has expired"}}, name)

    store.__dict__["client"] = Expired()
    with pytest.raises(InputError, match="refused"):
        store.get("a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")
    assert store.get("a") == b"1"
    assert store.client is not before
    assert store.client._request_signer._credentials.access_key == "renewed"
