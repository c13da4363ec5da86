"""A run's folder in object storage: what one node leaves there, another begins with, whole and once."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from assay.errors import Unavailable
from assay.storage.attempts import pull_metrics, whole
from assay.storage.lease import ATTEMPTS, TakenOver
from assay.storage.object_store import ObjectStore
from assay.storage.run_mirror import receiving, sending
from assay.train.checkpoint import Checkpoints
from assay.train.folder import CHECKPOINTS, FAILURE, LOG, OUTCOME, PICTURES, SHIPPED, SPOOL, STEPS, STOP, STORED
from assay.train.spool import Spool
from tests.support.mirror import attempt, following, loaded, place, record, save, sender, silent, steps
from tests.support.servers import wait_for


class Counting(ObjectStore):
    """Counts what it is asked."""

    listed: list[int]
    fetched = 0

    def _pages(self, folder: str, after: str, **more: str) -> Iterator[Any]:
        pages = list(super()._pages(folder, after, **more))
        self.listed.append(sum(len(page.get("Contents", ())) + len(page.get("CommonPrefixes", ())) for page in pages))
        yield from pages

    def get(self, name: str, first: int = 0) -> bytes | None:
        content = super().get(name, first)
        self.fetched += len(content or b"")
        return content


def test_another_node_begins_where_the_first_one_was(bucket: str, tmp_path: Path) -> None:
    a, b, driver = tmp_path / "a", tmp_path / "b", tmp_path / "driver"
    with receiving(bucket, driver, silent) as receiver:
        assert receiver is not None
        receiver.follow(attempt(1))
        with sending(bucket, attempt(1), a, silent):
            record(a, 1, 2, 3)
            save(a, 2, 3, 4)
            (a / STEPS).write_text("9")
            (a / LOG).write_text("hello\n")
        shutil.rmtree(a)  # the node is gone
        receiver.sync()
        assert (steps(driver), (driver / STEPS).read_text(), (driver / LOG).read_text()) == ([1, 2, 3], "9", "hello\n")
        receiver.follow(attempt(2))
        with sending(bucket, attempt(2), b, silent):
            assert loaded(b) == (4, 4.0)
            assert Checkpoints(b / CHECKPOINTS, silent).steps() == [4]
            record(b, 2, 3, 4, 5)  # what it computes again is recorded already
            save(b, 5, 6)
            (b / OUTCOME).write_text("{}")
    assert steps(driver) == [1, 2, 3, 4, 5]
    assert (driver / OUTCOME).exists()
    assert loaded(driver) == (6, 6.0)
    assert whole(place(bucket, 2)) == ["step-0000000006"]
    assert whole(place(bucket, 1)) == ["step-0000000004"]  # in case the newest is damaged


def test_an_attempt_that_has_saved_twice_needs_no_earlier_one(bucket: str, tmp_path: Path) -> None:
    first = sender(bucket, tmp_path / "a")
    record(tmp_path / "a", 1)
    save(tmp_path / "a", 1)
    first.sync()
    second = sender(bucket, tmp_path / "b", 2)
    for step in (2, 3):
        save(tmp_path / "b", step)
        second.sync()
    assert ObjectStore(bucket).folders(ATTEMPTS) == [attempt(2)]
    sender(bucket, tmp_path / "c", 3)
    assert (steps(tmp_path / "c"), loaded(tmp_path / "c")) == ([1], (3, 3.0))


def test_a_worker_that_was_cut_off_writes_nothing_that_its_successor_reads(bucket: str, tmp_path: Path) -> None:
    said: list[str] = []
    first = sender(bucket, tmp_path / "a", log=said.append)
    record(tmp_path / "a", 1, 2)
    save(tmp_path / "a", 2)
    first.sync()
    second = sender(bucket, tmp_path / "b", 2)  # the first was believed dead
    driver = following(bucket, tmp_path / "driver", 2)
    record(tmp_path / "a", 3, 4)
    save(tmp_path / "a", 4)
    (tmp_path / "a" / OUTCOME).write_text("{}")
    (tmp_path / "a" / FAILURE).write_text("{}")
    with pytest.raises(TakenOver):
        first.sync()
    assert (tmp_path / "a" / STOP).exists()
    first._send_metrics()  # even if it had looked a moment earlier
    first._send_checkpoints()
    first._send(OUTCOME)
    first._send(FAILURE)
    record(tmp_path / "b", 3)
    second.sync()
    driver.sync()
    assert steps(tmp_path / "driver") == [1, 2, 3]
    assert (tmp_path / "driver" / SPOOL).read_bytes() == (tmp_path / "b" / SPOOL).read_bytes()
    assert not (tmp_path / "driver" / OUTCOME).exists()
    assert not (tmp_path / "driver" / FAILURE).exists()
    first.close()


def test_a_worker_that_was_cut_off_leaves_nothing_of_a_run_that_is_finished(bucket: str, tmp_path: Path) -> None:
    first = sender(bucket, tmp_path / "a")
    record(tmp_path / "a", 1)
    ObjectStore(bucket).clear(ATTEMPTS)
    first.close()
    assert ObjectStore(bucket).list() == {}


def test_who_lost_its_lease_stops_its_own_workers_alone(bucket: str, tmp_path: Path) -> None:
    winner = sender(bucket, tmp_path / "b", 2)
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / STOP).touch()
    following(bucket, tmp_path / "driver", 1).sync()
    winner.sync()
    assert not (tmp_path / "b" / STOP).exists()


def test_a_node_that_is_ahead_of_the_store_goes_on_with_what_it_has(bucket: str, tmp_path: Path) -> None:
    first = sender(bucket, tmp_path / "a")
    record(tmp_path / "a", 1)
    save(tmp_path / "a", 1)
    first.sync()
    record(tmp_path / "a", 2, 3)
    save(tmp_path / "a", 3)  # and the store went away
    again = sender(bucket, tmp_path / "a", 2)
    assert (steps(tmp_path / "a"), loaded(tmp_path / "a")) == ([1, 2, 3], (3, 3.0))
    again.sync()
    driver = following(bucket, tmp_path / "driver", 2)
    driver.sync()
    assert steps(tmp_path / "driver") == [1, 2, 3]


def test_only_what_the_store_has_is_shipped_from_where_it_was_trained(bucket: str, tmp_path: Path) -> None:
    """Whoever continues it elsewhere computes the rest again, with other times."""
    a, driver = tmp_path / "a", tmp_path / "driver"
    first = sender(bucket, a)
    record(a, 1)
    assert (a / STORED).read_text() == "0"
    first._send_metrics()
    known = (a / STORED).read_text()
    record(a, 2)
    driver.mkdir()
    for folder in (a, driver):
        pull_metrics(ObjectStore(bucket), folder)
    assert int(known) == first.sent
    assert ((a / STORED).read_text(), steps(a)) == (known, [1, 2])
    assert (not (driver / STORED).exists(), steps(driver)) == (True, [1])  # all of that is in the store


def test_all_ranks_begin_with_the_checkpoints_of_rank_0(bucket: str, tmp_path: Path) -> None:
    """Also with those that only its node had."""
    first = sender(bucket, tmp_path / "a")
    save(tmp_path / "a", 1)
    first.sync()
    save(tmp_path / "a", 2, 3)  # and the store went away
    with ThreadPoolExecutor() as pool:
        other = pool.submit(sender, bucket, tmp_path / "rank-1", 2, writer=False)  # sooner than rank 0
        sender(bucket, tmp_path / "a", 2)
        other.result(30)
    for folder in (tmp_path / "a", tmp_path / "rank-1"):
        assert Checkpoints(folder / CHECKPOINTS, silent).steps() == [2, 3]
    assert not (tmp_path / "rank-1" / SPOOL).exists()


def test_a_node_that_another_has_overtaken_begins_with_its_state(bucket: str, tmp_path: Path) -> None:
    """What it had recorded beyond that is recorded anew there, so it is forgotten here."""
    a = tmp_path / "a"
    first = sender(bucket, a)
    record(a, 1)
    save(a, 1)
    first.sync()
    record(a, 2, 3)
    save(a, 3)
    (a / SHIPPED).write_bytes(b"stale")
    assert (a / STORED).read_text() == str(first.sent)  # more must not be shipped
    second = sender(bucket, tmp_path / "b", 2)
    record(tmp_path / "b", 2)
    save(tmp_path / "b", 2)
    second.sync()
    sender(bucket, a, 3)
    assert (steps(a), loaded(a)) == ([1, 2], (2, 2.0))
    assert (a / SPOOL).read_bytes() == (tmp_path / "b" / SPOOL).read_bytes()
    assert not (a / SHIPPED).exists()
    assert (a / STORED).read_text() == "0"


def test_a_run_of_weeks_leaves_few_objects(bucket: str, tmp_path: Path) -> None:
    store = Counting(bucket)
    store.listed = []
    sending_end = sender(bucket, tmp_path / "a")
    receiver = following(bucket, tmp_path / "driver")
    receiver.place.__class__ = Counting
    receiver.place.listed = store.listed  # type: ignore[attr-defined]
    spool = Spool(tmp_path / "a" / SPOOL)
    for step in range(1500):
        spool.append(step, {"train/loss": step / 7})
        if step % 10 == 9:
            sending_end._send_metrics()
        if step % 50 == 49:
            receiver.sync()
        assert len(sending_end.pieces) < 16
    spool.close()
    size = (tmp_path / "a" / SPOOL).stat().st_size
    assert len(place(bucket).list("spool")) < 16
    assert max(store.listed) < 16
    assert receiver.place.fetched == size  # type: ignore[attr-defined] # each byte once
    assert steps(tmp_path / "driver") == list(range(1500))


def test_pictures_are_listed_from_the_last_on(bucket: str, tmp_path: Path) -> None:
    first = sender(bucket, tmp_path / "a")
    receiver = following(bucket, tmp_path / "driver")
    receiver.place.__class__ = Counting
    receiver.place.listed = []  # type: ignore[attr-defined]
    pictures = tmp_path / "a" / PICTURES
    pictures.mkdir()
    for step in range(8):
        for name in ("z", "a"):  # the second sorts before the first
            (pictures / f"step-{step:08d}-{name}.png").write_bytes(b"png")
            first.sync()
            receiver.sync()
    assert max(receiver.place.listed) <= 3  # type: ignore[attr-defined]
    assert len(list((tmp_path / "driver" / PICTURES).iterdir())) == 16


def test_a_half_sent_checkpoint_is_not_looked_at(bucket: str, tmp_path: Path) -> None:
    with sending(bucket, attempt(1), tmp_path / "a", silent):
        save(tmp_path / "a", 1)
    place(bucket).put(f"{CHECKPOINTS}/step-0000000002/state.json", b"{}")
    with sending(bucket, attempt(2), tmp_path / "b", silent):
        assert loaded(tmp_path / "b") == (1, 1.0)


def test_a_half_fetched_checkpoint_is_fetched_again(bucket: str, tmp_path: Path) -> None:
    with sending(bucket, attempt(1), tmp_path / "a", silent):
        save(tmp_path / "a", 1)
    half = tmp_path / "b" / CHECKPOINTS / ".step-0000000001.pull"
    half.mkdir(parents=True)
    (half / "weights.safetensors").write_bytes(b"half")
    (half / "stray").write_bytes(b"")
    with sending(bucket, attempt(2), tmp_path / "b", silent):
        assert loaded(tmp_path / "b") == (1, 1.0)
        assert not list((tmp_path / "b" / CHECKPOINTS).rglob("stray"))


def test_pieces_whose_answers_were_lost_are_read_once(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sender(bucket, tmp_path / "a")
    receiver = following(bucket, tmp_path / "driver")
    chance = random.Random(3)
    put = ObjectStore.put

    def lossy(store: ObjectStore, name: str, content: bytes) -> None:
        put(store, name, content)
        if chance.random() < 0.4:
            raise Unavailable("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "put", lossy)
        for step in range(60):
            record(tmp_path / "a", step)
            with suppress(Unavailable):
                first._send_metrics()
            if chance.random() < 0.3:
                receiver.sync()
    first.sync()
    receiver.sync()
    assert (tmp_path / "driver" / SPOOL).read_bytes() == (tmp_path / "a" / SPOOL).read_bytes()
    assert len(place(bucket).list("spool")) == len(first.pieces)


def test_a_torn_line_waits_for_its_end(bucket: str, tmp_path: Path) -> None:
    first = sender(bucket, tmp_path / "a")
    receiver = following(bucket, tmp_path / "b")
    record(tmp_path / "a", 1)
    whole_lines = (tmp_path / "a" / SPOOL).read_bytes()
    (tmp_path / "a" / SPOOL).write_bytes(whole_lines + b'{"step": 2, "ti')
    first.sync()
    receiver.sync()
    assert (tmp_path / "b" / SPOOL).read_bytes() == whole_lines


def test_a_wish_to_stop_reaches_the_worker(bucket: str, tmp_path: Path) -> None:
    with receiving(bucket, tmp_path / "driver", silent) as receiver:
        assert receiver is not None
        receiver.follow(attempt(1))
        with sending(bucket, attempt(1), tmp_path / "node", silent):
            (tmp_path / "driver" / STOP).touch()
            wait_for("the order to stop", (tmp_path / "node" / STOP).exists, 20)


def test_a_failure_is_told_by_whoever_has_it(bucket: str, tmp_path: Path) -> None:
    driver = tmp_path / "driver"
    with receiving(bucket, driver, silent) as receiver:
        assert receiver is not None
        receiver.follow(attempt(1))
        sender(bucket, tmp_path / "rank-0")
        with sending(bucket, attempt(1), tmp_path / "rank-1", silent, writer=False):
            (tmp_path / "rank-1" / FAILURE).write_text(json.dumps({"message": "the disk is full"}))
            (tmp_path / "rank-1" / STEPS).write_text("1")
    assert json.loads((driver / FAILURE).read_text()) == {"message": "the disk is full"}
    assert not (driver / STEPS).exists()


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
