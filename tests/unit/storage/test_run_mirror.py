"""A run's folder in object storage: what one node leaves there, another begins with, whole and once."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from assay.errors import InputError, Unavailable
from assay.storage.object_store import ObjectStore
from assay.storage.run_mirror import Receiver, Sender, receiving, sending
from assay.train.checkpoint import Checkpoints
from assay.train.folder import CHECKPOINTS, FAILURE, LOG, OUTCOME, SPOOL, STEPS, STOP
from assay.train.spool import Spool, read_spool
from tests.support.servers import wait_for


def silent(_: str) -> None: ...


def save(folder: Path, *steps: int) -> None:
    checkpoints = Checkpoints(folder / CHECKPOINTS, silent)
    for step in steps:
        checkpoints.save(step, {"weights": {"w": torch.full((3,), float(step))}})


def loaded(folder: Path) -> tuple[int, float] | None:
    found = Checkpoints(folder / CHECKPOINTS, silent).load()
    return None if found is None else (found[0], float(found[1]["weights"]["w"][0]))


def record(folder: Path, *steps: int) -> None:
    spool = Spool(folder / SPOOL)
    for step in steps:
        spool.append(step, {"train/loss": step / 7})
    spool.close()


def steps(folder: Path) -> list[int]:
    return [found.step for found, _ in read_spool(folder / SPOOL, 0)]


def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without a server; the pauses between the client's tries, up to 20 s, are left out."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))


def test_another_node_begins_where_the_first_one_was(bucket: str, tmp_path: Path) -> None:
    a, b, driver = tmp_path / "a", tmp_path / "b", tmp_path / "driver"
    with receiving(bucket, driver, silent) as receiver:
        assert receiver is not None
        with sending(bucket, a, silent):
            record(a, 1, 2, 3)
            save(a, 2, 3, 4)
            (a / STEPS).write_text("9")
            (a / LOG).write_text("hello\n")
        shutil.rmtree(a)  # the node is gone
        receiver.sync()
        assert (steps(driver), (driver / STEPS).read_text(), (driver / LOG).read_text()) == ([1, 2, 3], "9", "hello\n")
        with sending(bucket, b, silent):
            assert loaded(b) == (4, 4.0)
            assert Checkpoints(b / CHECKPOINTS, silent).steps() == [4]
            record(b, 2, 3, 4, 5)  # what it computes again is recorded already
            save(b, 5, 6)
            (b / OUTCOME).write_text("{}")
    assert steps(driver) == [1, 2, 3, 4, 5]
    assert (driver / OUTCOME).exists()
    assert loaded(driver) == (6, 6.0)
    names = ObjectStore(bucket).list(CHECKPOINTS)
    assert {name.split("/")[1] for name in names} == {
        "step-0000000004",
        "step-0000000006",
    }  # the newest two that were sent


def test_a_half_sent_checkpoint_is_not_looked_at(bucket: str, tmp_path: Path) -> None:
    with sending(bucket, tmp_path / "a", silent):
        save(tmp_path / "a", 1)
    ObjectStore(bucket).put(f"{CHECKPOINTS}/step-0000000002/state.json", b"{}")
    with sending(bucket, tmp_path / "b", silent):
        assert loaded(tmp_path / "b") == (1, 1.0)


def test_a_piece_that_was_sent_twice_is_read_once(bucket: str, tmp_path: Path) -> None:
    """The answer to the first was lost, so the second has the same name and reaches further."""
    store, sender = ObjectStore(bucket), Sender(ObjectStore(bucket), tmp_path / "a", silent, writer=True)
    receiver = Receiver(store, tmp_path / "driver", silent)
    record(tmp_path / "a", 1, 2)
    sender.sync()
    receiver.sync()
    record(tmp_path / "a", 3)
    sender.sent = 0
    sender.sync()
    record(tmp_path / "a", 4)
    sender.sync()
    receiver.sync()
    assert (tmp_path / "driver" / SPOOL).read_bytes() == (tmp_path / "a" / SPOOL).read_bytes()


def test_a_torn_line_waits_for_its_end(bucket: str, tmp_path: Path) -> None:
    sender = Sender(ObjectStore(bucket), tmp_path / "a", silent, writer=True)
    receiver = Receiver(ObjectStore(bucket), tmp_path / "b", silent)
    record(tmp_path / "a", 1)
    whole = (tmp_path / "a" / SPOOL).read_bytes()
    (tmp_path / "a" / SPOOL).write_bytes(whole + b'{"step": 2, "ti')
    sender.sync()
    receiver.sync()
    assert (tmp_path / "b" / SPOOL).read_bytes() == whole


def test_a_wish_to_stop_reaches_the_worker(bucket: str, tmp_path: Path) -> None:
    with receiving(bucket, tmp_path / "driver", silent), sending(bucket, tmp_path / "node", silent):
        (tmp_path / "driver" / STOP).touch()
        wait_for("the order to stop", (tmp_path / "node" / STOP).exists, 20)


def test_a_failure_is_told_by_whoever_has_it(bucket: str, tmp_path: Path) -> None:
    driver = tmp_path / "driver"
    with receiving(bucket, driver, silent), sending(bucket, tmp_path / "rank-1", silent, writer=False):
        (tmp_path / "rank-1" / FAILURE).write_text(json.dumps({"message": "the disk is full"}))
        (tmp_path / "rank-1" / STEPS).write_text("1")
    assert json.loads((driver / FAILURE).read_text()) == {"message": "the disk is full"}
    assert not (driver / STEPS).exists()


def test_wrong_places_are_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="bucket 'nowhere' does not exist"):
        ObjectStore("s3://nowhere/x").list()
    with pytest.raises(InputError, match="must be a folder or s3://bucket/prefix"):
        ObjectStore("gs://b/x")
    nobody_listens(monkeypatch)
    with pytest.raises(Unavailable, match=f"{bucket} does not answer"):
        ObjectStore(bucket).list()


def test_what_cannot_be_brought_at_the_end_is_an_error(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    sender = Sender(ObjectStore(bucket), tmp_path, told.append, writer=True)
    sender.begin()
    sender.start()
    nobody_listens(monkeypatch)
    sender.store = ObjectStore(bucket)
    record(tmp_path, 1)
    wait_for("the word", lambda: told, 20)
    with pytest.raises(Unavailable, match="does not answer"):
        sender.close()
    assert len(told) == 1


def test_marks_change_with_the_content_alone(bucket: str) -> None:
    store = ObjectStore(bucket)
    mark = store.exchange("a", b"1", None)
    assert mark is not None
    assert store.exchange("a", b"2", None) is None
    assert store.exchange("a", b"2", "other") is None
    second = store.exchange("a", b"2", mark)
    assert second is not None
    found = store.get_marked("a")
    assert found is not None
    assert found[:2] == (b"2", second)
    assert 0 <= found[2] < 60
    assert dataclasses.astuple(store.list()["a"])[1] == 1
