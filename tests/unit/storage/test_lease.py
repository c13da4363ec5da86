"""A run in object storage has one worker at a time, also where two try at the same moment."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from assay.errors import InputError
from assay.settings import Settings
from assay.storage import lease
from assay.storage.lease import NAME, Lease, is_dead
from assay.storage.object_store import ObjectStore
from assay.storage.run_mirror import Sender
from assay.tracking.runs import claim, reap
from assay.tracking.tracker import Tracker
from assay.train.folder import SPOOL
from assay.train.spool import Spool
from tests.unit.tracking.test_runs import provenance, status


def nothing() -> None: ...


def owner(pid: int, host: str = "") -> bytes:
    return json.dumps({"host": host or socket.gethostname(), "pid": pid, "token": "t"}).encode()


def test_it_has_one_holder_until_it_is_released(bucket: str) -> None:
    first, second = Lease(ObjectStore(bucket), nothing), Lease(ObjectStore(bucket), nothing)
    assert first.take()
    assert not second.take()
    assert not is_dead(ObjectStore(bucket))
    first.release()
    assert not is_dead(ObjectStore(bucket))  # nobody has died
    assert second.take()
    second.release()


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(bucket: str) -> None:
    ObjectStore(bucket).put(NAME, owner(2**22 + 7))
    assert is_dead(ObjectStore(bucket))
    taken = Lease(ObjectStore(bucket), nothing)
    assert taken.take()
    taken.release()


def test_that_of_another_machine_is_free_when_it_was_not_renewed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ObjectStore(bucket).put(NAME, owner(1, "elsewhere"))
    assert not Lease(ObjectStore(bucket), nothing).take()
    monkeypatch.setattr(lease, "LASTS_SECONDS", -1.0)
    assert is_dead(ObjectStore(bucket))
    taken = Lease(ObjectStore(bucket), nothing)
    assert taken.take()
    taken.release()


def test_of_many_who_take_a_dead_lease_one_gets_it(bucket: str) -> None:
    ObjectStore(bucket).put(NAME, owner(2**22 + 7))
    leases = [Lease(ObjectStore(bucket), nothing) for _ in range(8)]
    ready, got = threading.Barrier(8), []

    def body(one: Lease) -> None:
        one.store.get_marked(NAME)
        ready.wait()
        if one.take():
            got.append(one)

    threads = [threading.Thread(target=body, args=(one,)) for one in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    got[0].release()


def test_it_is_renewed_and_a_loss_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    lost = threading.Event()
    held = Lease(ObjectStore(bucket), lost.set)
    assert held.take()
    first = held.mark
    while held.mark == first:
        assert not lost.wait(0.02)
    ObjectStore(bucket).put(NAME, owner(1, "elsewhere"))  # another machine believed this one dead
    assert lost.wait(10)
    held.release()
    assert ObjectStore(bucket).get(NAME) == owner(1, "elsewhere")  # which is not ours to remove


def test_a_claim_holds_on_other_machines_too_and_the_dead_are_reaped(
    settings: Settings, tracker: Tracker, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here, there = (
        Settings(project=tmp_path / name, storage=bucket, ASSAY_TRACKING_URI=settings.tracking) for name in ("a", "b")
    )
    for each in (here, there):
        (each.root / "params.yaml").touch()
    inputs = provenance()
    with claim(here, tracker, "runs", inputs, None, False) as held:
        with pytest.raises(InputError, match="being trained"), claim(there, tracker, "runs", inputs, None, False):
            pass
        assert reap(there, tracker) == []
    tracker.set_status(held.run_id, "RUNNING")
    store = ObjectStore(bucket).below(held.run_id)
    store.put(NAME, owner(2**22 + 7))
    spool = Spool(tmp_path / "node" / SPOOL)
    spool.append(3, {"train/loss": 0.5})
    Sender(store, tmp_path / "node", lambda _: None, writer=True).sync()
    spool.close()
    assert reap(there, tracker) == [held.run_id]
    assert status(tracker, held.run_id) == "KILLED"
    assert tracker.get(held.run_id).data.metrics == {"train/loss": 0.5}
    assert store.get(NAME) is None
