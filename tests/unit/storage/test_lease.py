"""A run in object storage has one worker at a time, also where two try at the same moment."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay.errors import InputError, Unavailable
from assay.owner import Owner
from assay.settings import Settings
from assay.storage import lease
from assay.storage.attempts import of
from assay.storage.lease import NAME, Lease, TakenOver, is_dead, read, turn
from assay.storage.object_store import ObjectStore
from assay.storage.run_mirror import Sender
from assay.tracking.runs import claim, reap, status_as_earned
from assay.tracking.tracker import Tracker
from assay.train.folder import SPOOL
from assay.train.spool import Spool
from tests.unit.tracking.test_runs import provenance, status

GONE = replace(Owner.here(), pid=2**22 + 7)
ELSEWHERE = replace(Owner.here(), machine="another boot")


def held_by(owner: Owner, number: int = 1) -> bytes:
    return json.dumps({"number": number, "token": "t", "owner": owner.plain(), "nonce": "n"}).encode()


class Wire(ObjectStore):
    """A store whose answers may be lost, and which tells of each write before it."""

    lost = 0
    before: Callable[[], Any] | None = None

    def exchange(self, name: str, content: bytes, mark: str | None) -> str | None:
        act, self.before = self.before, None
        if act is not None:
            act()
        answer = super().exchange(name, content, mark)
        if self.lost:
            self.lost -= 1
            raise Unavailable("the answer was lost")
        return answer


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is renewed by itself: the tests do it."""
    monkeypatch.setattr(lease, "RENEW_SECONDS", 30.0)
    monkeypatch.setattr(lease, "LASTS_SECONDS", 45.0)


def test_it_has_one_holder_until_it_is_released(bucket: str) -> None:
    first, second = Lease(ObjectStore(bucket)), Lease(ObjectStore(bucket))
    assert first.take()
    assert not second.take()
    assert not is_dead(ObjectStore(bucket))
    first.release()
    assert not is_dead(ObjectStore(bucket))  # nobody has died
    assert ObjectStore(bucket).get(NAME) is None
    assert second.take()
    second.release()


def test_each_owner_has_a_higher_number_as_long_as_there_is_anything_of_another(bucket: str) -> None:
    store = ObjectStore(bucket)
    for number in (1, 2, 3):
        one = Lease(store)
        assert one.take()
        assert one.number == number
        of(store, f"0000000{number}-a").put("begun", b"")
        one.release()
        assert not is_dead(store)


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(bucket: str) -> None:
    ObjectStore(bucket).put(NAME, held_by(GONE))
    assert is_dead(ObjectStore(bucket))
    taken = Lease(ObjectStore(bucket))
    assert taken.take()
    assert taken.number == 2
    taken.release()


@pytest.mark.parametrize("owner", [ELSEWHERE, replace(GONE, namespace="another container"), Owner.here()])
def test_a_live_one_is_left_alone_whatever_the_machine_is_called(bucket: str, owner: Owner) -> None:
    """The process id means nothing there, where a host name may well be the same."""
    ObjectStore(bucket).put(NAME, held_by(owner))
    assert not is_dead(ObjectStore(bucket))
    assert not Lease(ObjectStore(bucket)).take()


def test_that_of_another_machine_is_free_when_it_was_not_renewed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ObjectStore(bucket).put(NAME, held_by(ELSEWHERE))
    monkeypatch.setattr(lease, "LASTS_SECONDS", -1.0)
    assert is_dead(ObjectStore(bucket))
    taken = Lease(ObjectStore(bucket))
    assert taken.take()
    taken.release()


def test_of_many_who_take_a_dead_lease_one_gets_it(bucket: str) -> None:
    ObjectStore(bucket).put(NAME, held_by(GONE))
    leases = [Lease(ObjectStore(bucket)) for _ in range(8)]
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
    first = held._mark
    while held._mark == first:
        assert not lost.wait(0.02)
    ObjectStore(bucket).put(NAME, held_by(ELSEWHERE))  # another machine believed this one dead
    assert lost.wait(10)
    assert not held.owns()
    held.release()
    assert ObjectStore(bucket).get(NAME) == held_by(ELSEWHERE)  # which is not ours to remove


@pytest.mark.usefixtures("slow")
def test_any_number_of_lost_answers_is_no_loss(bucket: str) -> None:
    store = Wire(bucket)
    held = Lease(store)
    assert held.take()
    for lost in (1, 2, 3):
        store.lost = lost
        for _ in range(lost):
            with pytest.raises(Unavailable):
                held._renew()
        held._renew()
        assert not held.is_lost
        assert not Lease(ObjectStore(bucket)).take()
    store.lost = 1
    held.release()  # it was released, though nobody said so
    after = Lease(ObjectStore(bucket))
    assert after.take()
    after.release()


@pytest.mark.usefixtures("slow")
def test_a_lost_answer_to_the_first_write_does_not_lock_its_owner_out(bucket: str) -> None:
    store = Wire(bucket)
    answers: list[str | None] = []

    def twice() -> None:  # as the client does by itself: the first was written, and the second finds it
        answers.append(ObjectStore.exchange(store, NAME, held_by(Owner.here()).replace(b'"t"', token), None))

    held = Lease(store)
    token = json.dumps(held._token).encode()
    store.before = twice
    assert held.take()
    assert held.owns()
    held.release()


@pytest.mark.usefixtures("slow")
def test_who_is_taken_over_at_the_moment_of_its_release_frees_nothing(bucket: str) -> None:
    store = Wire(bucket)
    held = Lease(store)
    assert held.take()
    store.before = lambda: ObjectStore(bucket).put(NAME, held_by(ELSEWHERE, 2))
    held.release()
    found = read(ObjectStore(bucket))
    assert found is not None
    assert (found.number, found.token) == (2, "t")


@pytest.mark.usefixtures("slow")
def test_while_it_cannot_be_renewed_nobody_relies_on_it(bucket: str) -> None:
    store = Wire(bucket)
    held = Lease(store)
    assert held.take()
    assert held.owns()
    held._renewed -= 60
    store.lost = 10
    assert not held.owns()
    assert not held.is_lost
    store.lost = 0
    assert held.owns()
    ObjectStore(bucket).put(NAME, held_by(ELSEWHERE, 2))
    held._renewed -= 60
    assert not held.owns()
    assert held.is_lost
    held.release()


@pytest.mark.usefixtures("slow")
def test_one_that_is_gone_is_put_back_unless_another_may_have_had_it(bucket: str) -> None:
    """It is gone, too, when a successor has finished the run."""
    held = Lease(ObjectStore(bucket))
    assert held.take()
    ObjectStore(bucket).remove(NAME)
    held._renew()
    assert held.owns()
    assert ObjectStore(bucket).get(NAME) is not None
    ObjectStore(bucket).remove(NAME)
    held._renewed -= 60
    assert not held.owns()
    assert held.is_lost
    held.release()
    assert ObjectStore(bucket).get(NAME) is None


def test_turns_come_one_after_the_other(bucket: str) -> None:
    inside, most = 0, 0
    lock = threading.Lock()

    def body() -> None:
        nonlocal inside, most
        with turn(ObjectStore(bucket).below("claims/x")):
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert ObjectStore(bucket).list() == {}


@pytest.fixture
def machines(settings: Settings, bucket: str, tmp_path: Path) -> list[Settings]:
    """Two clones on one tracking store and one bucket."""
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "params.yaml").touch()
        found.append(Settings(project=tmp_path / name, storage=bucket, ASSAY_TRACKING_URI=settings.tracking))
    return found


def test_a_claim_holds_on_other_machines_too_and_the_dead_are_reaped(
    machines: list[Settings], tracker: Tracker, bucket: str, tmp_path: Path
) -> None:
    here, there = machines
    inputs = provenance()
    with claim(here, tracker, "runs", inputs, None, False) as held:
        with pytest.raises(InputError, match="being trained"), claim(there, tracker, "runs", inputs, None, False):
            pass
        assert reap(there, tracker) == []
    tracker.set_status(held.run_id, "RUNNING")
    store = ObjectStore(bucket).below(held.run_id)
    store.put(NAME, held_by(GONE))
    spool = Spool(tmp_path / "node" / SPOOL)
    spool.append(3, {"train/loss": 0.5})
    sender = Sender(store, "00000001-0001-x", tmp_path / "node", lambda _: None)
    sender.begin()
    sender.sync()
    spool.close()
    assert reap(there, tracker) == [held.run_id]
    assert status(tracker, held.run_id) == "KILLED"
    assert tracker.get(held.run_id).data.metrics == {"train/loss": 0.5}
    found = read(store)
    assert found is not None
    assert found.free
    assert found.number == 2  # whoever continues it has a higher one than the dead


def test_machines_that_begin_at_the_same_moment_make_one_run(machines: list[Settings], tracker: Tracker) -> None:
    for _ in range(3):
        inputs = provenance()
        ready, over, got, refused = threading.Barrier(2), threading.Event(), [], []

        def body(
            settings: Settings, inputs: Any = inputs, ready: Any = ready, over: Any = over, got: Any = got,
            refused: Any = refused,
        ) -> None:  # fmt: skip
            ready.wait()
            try:
                with claim(settings, Tracker(settings), "runs", inputs, None, False) as held:
                    got.append(held.run_id)
                    over.wait(30)
            except InputError:
                refused.append(settings)
                over.set()

        threads = [threading.Thread(target=body, args=(settings,)) for settings in machines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(got), len(refused)) == (1, 1)
        (experiment,) = tracker._client.search_experiments(filter_string="name = 'runs'")
        same = f"tags.`assay.fingerprint` = '{inputs.tags['fingerprint']}'"
        assert [r.info.run_id for r in tracker._client.search_runs([experiment.experiment_id], same)] == got


def test_who_lost_its_lease_leaves_the_record_to_the_winner(
    machines: list[Settings], tracker: Tracker, bucket: str
) -> None:
    here, _ = machines
    with claim(here, tracker, "runs", provenance(), None, False) as held:
        assert held.lease is not None
        ObjectStore(bucket).below(held.run_id).put(NAME, held_by(ELSEWHERE, 2))
        held.lease._renewed -= 60
        assert not held.lease.owns()
        with (
            pytest.raises(TakenOver, match="has taken this run over"),
            status_as_earned(held.run_id, tracker),
            held.lease.kept(),
        ):
            raise InputError("stopped and saved")
    assert status(tracker, held.run_id) == "RUNNING"
    assert ObjectStore(bucket).below(held.run_id).get(NAME) == held_by(ELSEWHERE, 2)
    tracker.set_status(held.run_id, "KILLED")
