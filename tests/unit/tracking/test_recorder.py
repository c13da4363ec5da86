"""Every point reaches the store once: also after an outage, and after a kill between two lines of code."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from assay.errors import WorkError
from assay.settings import Settings
from assay.tracking import artifacts, recorder, shipped
from assay.tracking.curves import read_curves
from assay.tracking.recorder import Recorder, Shipment, ship
from assay.tracking.tracker import BATCH, Tracker
from assay.train.folder import SHIPPED, SPOOL, STORED
from assay.train.spool import Spool

Points = list[tuple[int, float]]


@pytest.fixture
def run_id(tracker: Tracker) -> str:
    found = tracker._client.get_experiment_by_name("recorder")
    experiment = found.experiment_id if found else tracker._client.create_experiment("recorder")
    made: str = tracker._client.create_run(experiment).info.run_id
    return made


def spool(folder: Path, first: int, end: int, names: int = 1) -> None:
    writer = Spool(folder / SPOOL)
    for step in range(first, end):
        writer.append(step, {f"train/m{i}": step + i / 8 for i in range(names)})
    writer.sync()
    writer.close()


def stored(tracker: Tracker, run_id: str, name: str = "train/m0") -> Points:
    return sorted((m.step, m.value) for m in tracker._client.get_metric_history(run_id, name))


def expected(end: int, number: int = 0) -> Points:
    return [(step, step + number / 8) for step in range(end)]


class Broken:
    """A store that does not answer while it is `down`."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.down = True
        self.asked = 0

    def log_batch(self, *arguments: Any, **named: Any) -> None:
        self.asked += 1
        if self.down:
            raise ConnectionError("no route\nto host")
        self.client.log_batch(*arguments, **named)


class Standing(Tracker):
    """A tracker around a client."""

    def __init__(self, client: Any) -> None:
        self._client = client


@pytest.fixture
def broken(tracker: Tracker) -> tuple[Any, Broken]:
    store = Broken(tracker._client)
    return Standing(store), store


def until(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def test_nothing_to_ship(tracker: Tracker, run_id: str, tmp_path: Path) -> None:
    assert ship(tracker, run_id, tmp_path) == 0
    spool(tmp_path, 0, 0)
    assert ship(tracker, run_id, tmp_path) == 0


def test_each_point_once_with_its_time(tracker: Tracker, run_id: str, tmp_path: Path) -> None:
    spool(tmp_path, 0, 3)
    assert ship(tracker, run_id, tmp_path) == 3
    assert ship(tracker, run_id, tmp_path) == 0
    spool(tmp_path, 3, 5)
    assert ship(tracker, run_id, tmp_path) == 2
    assert stored(tracker, run_id) == expected(5)
    times = [json.loads(line)["time"] for line in (tmp_path / SPOOL).read_text().splitlines()]
    assert sorted(m.timestamp for m in tracker._client.get_metric_history(run_id, "train/m0")) == times


def test_killed_between_sending_and_remembering(
    tracker: Tracker, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool(tmp_path, 0, 2)
    ship(tracker, run_id, tmp_path)
    spool(tmp_path, 2, 5)
    with monkeypatch.context() as patch:
        patch.setattr(shipped, "write_atomic", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ship(tracker, run_id, tmp_path)
    assert stored(tracker, run_id) == expected(5)
    assert ship(tracker, run_id, tmp_path) == 3  # sent again, with the same times
    assert stored(tracker, run_id) == expected(5)
    (tmp_path / SHIPPED).unlink()
    assert ship(tracker, run_id, tmp_path) == 5
    assert stored(tracker, run_id) == expected(5)


def test_many_metrics_go_in_batches_that_the_store_takes(tracker: Tracker, run_id: str, tmp_path: Path) -> None:
    spool(tmp_path, 0, 6, names=450)
    assert ship(tracker, run_id, tmp_path) == 2700
    for number in (0, 449):
        assert stored(tracker, run_id, f"train/m{number}") == expected(6, number)


def test_more_metrics_in_a_step_than_the_store_takes_at_once(
    tracker: Tracker, run_id: str, broken: Any, tmp_path: Path
) -> None:
    standing, store = broken
    sizes: list[int] = []

    def send(run: str, metrics: list[Any]) -> None:  # a server refuses more, SQLite without one does not
        sizes.append(len(metrics))
        tracker._client.log_batch(run, metrics=metrics)

    store.log_batch = send
    spool(tmp_path, 0, 1, names=2 * BATCH + 1)
    assert ship(standing, run_id, tmp_path) == 2 * BATCH + 1
    assert sizes == [BATCH, BATCH, 1]
    assert stored(tracker, run_id, f"train/m{2 * BATCH}") == expected(1, 2 * BATCH)


def test_a_batch_that_failed_is_sent_again(run_id: str, tracker: Tracker, broken: Any, tmp_path: Path) -> None:
    standing, store = broken
    spool(tmp_path, 0, 4, names=450)
    with pytest.raises(ConnectionError):
        ship(standing, run_id, tmp_path)
    store.down = False
    send = store.client.log_batch
    answers = iter([None, ConnectionError("gone")])

    def once(*arguments: Any, **named: Any) -> None:
        if (answer := next(answers, None)) is not None:
            raise answer
        send(*arguments, **named)

    store.log_batch = once
    with pytest.raises(ConnectionError):
        ship(standing, run_id, tmp_path)
    assert stored(tracker, run_id) == expected(2)
    assert ship(standing, run_id, tmp_path) == 900
    assert stored(tracker, run_id, "train/m449") == expected(4, 449)


def test_a_line_that_is_being_written_waits(tracker: Tracker, run_id: str, tmp_path: Path) -> None:
    spool(tmp_path, 0, 3)
    whole = (tmp_path / SPOOL).read_bytes()
    (tmp_path / SPOOL).write_bytes(whole[:-5])
    assert ship(tracker, run_id, tmp_path) == 2
    (tmp_path / SPOOL).write_bytes(whole)
    assert ship(tracker, run_id, tmp_path) == 1
    assert stored(tracker, run_id) == expected(3)


def test_what_is_sent_is_safe_on_the_disk_first(
    tracker: Tracker, run_id: str, broken: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut leaves a spool shorter than the offset, and what follows is never sent."""
    events: list[str] = []
    standing, store = broken
    spool(tmp_path, 0, 1)
    monkeypatch.setattr(recorder.os, "fsync", lambda number: events.append("synced"))
    store.log_batch = lambda *arguments, **named: events.append("sent")
    ship(standing, run_id, tmp_path)
    assert events[:2] == ["synced", "sent"]


def test_an_outage_is_told_once_and_everything_arrives_after_it(
    run_id: str, tracker: Tracker, broken: Any, tmp_path: Path
) -> None:
    standing, store = broken
    warnings: list[str] = []
    running = Recorder(standing, run_id, tmp_path, warnings.append)
    running._stop.wait = lambda seconds, wait=running._stop.wait: wait(min(seconds, 0.05))  # type: ignore[method-assign]
    spool(tmp_path, 0, 3)
    until(lambda: store.asked >= 3)
    assert warnings == [f"the tracking store does not answer (no route to host); metrics wait in {tmp_path}"]
    store.down = False
    until(lambda: len(stored(tracker, run_id)) == 3)
    spool(tmp_path, 3, 5)
    running.close()
    assert stored(tracker, run_id) == expected(5)
    assert not running._thread.is_alive()


def test_a_run_that_ends_in_an_outage_keeps_its_metrics(
    run_id: str, tracker: Tracker, broken: Any, tmp_path: Path
) -> None:
    standing, store = broken
    running = Recorder(standing, run_id, tmp_path, lambda line: None)
    spool(tmp_path, 0, 3)
    with pytest.raises(WorkError, match="the metrics are safe in"):
        running.close()
    assert not running._thread.is_alive()
    assert ship(tracker, run_id, tmp_path) == 3
    assert stored(tracker, run_id) == expected(3)


@pytest.mark.parametrize("note", [b"", b"\0" * 30, b"17", b'{"offset":99999,"damaged":false,"crc32":"00000000"}\n'])
def test_an_unreadable_offset_counts_as_zero_and_is_said(
    tracker: Tracker, run_id: str, tmp_path: Path, note: bytes
) -> None:
    spool(tmp_path, 0, 3)
    ship(tracker, run_id, tmp_path)
    (tmp_path / SHIPPED).write_bytes(note)
    spool(tmp_path, 3, 5)
    said: list[str] = []
    assert ship(tracker, run_id, tmp_path, said.append) == 2
    assert said == [f"{tmp_path / SHIPPED}: does not fit the spool.jsonl beside it; all that is there is sent again"]
    assert stored(tracker, run_id) == expected(5)
    assert ship(tracker, run_id, tmp_path, said.append) == 0
    assert len(said) == 1


def test_damage_is_said_once_and_the_curves_are_those_of_the_store(
    tracker: Tracker, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool(tmp_path, 0, 96)
    ship(tracker, run_id, tmp_path)
    lines = (tmp_path / SPOOL).read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"3.0", b"7.0")
    (tmp_path / SPOOL).write_bytes(b"".join(lines[:80]))  # and its end is missing
    said: list[str] = []
    spool(tmp_path, 70, 100)  # it continues from a checkpoint at step 70
    running = Recorder(tracker, run_id, tmp_path, said.append)
    running.close()
    assert stored(tracker, run_id) == expected(100)
    assert said[-1] == (
        f"{tmp_path / SPOOL}: damaged in 2 places; of the metrics there, those are kept that were sent before"
    )
    once = len(said)
    curves = read_curves(tmp_path, lambda: tracker.history(run_id))
    assert curves == {"train/m0": expected(100)}
    spool(tmp_path, 100, 101)
    assert ship(tracker, run_id, tmp_path, said.append) == 1
    assert len(said) == once
    drawn: dict[str, bytes] = {}
    monkeypatch.setattr(tracker, "log_bytes", lambda _, name, content: drawn.update({name: content}))
    tracker.log_curves(run_id, tmp_path)
    assert drawn[artifacts.CURVES].count(b"train/m0") == 101


@pytest.mark.parametrize("seen", [False, True])
def test_after_somebody_emptied_the_spool_all_that_follows_arrives_once(
    tracker: Tracker, run_id: str, tmp_path: Path, seen: bool
) -> None:
    said: list[str] = []
    shipment = Shipment(tracker, run_id, tmp_path, said.append)
    writer = Spool(tmp_path / SPOOL)

    def measure(first: int, end: int) -> None:
        for step in range(first, end):
            writer.append(step, {"train/m0": float(step)})

    measure(0, 10)
    assert shipment.send() == 10
    measure(10, 12)  # which are lost
    os.truncate(tmp_path / SPOOL, 0)
    if seen:
        assert shipment.send() == 0
    measure(12, 40)
    assert shipment.send() == 28
    assert [line.partition(" (")[0].partition("; ")[0] for line in said] == [
        f"{tmp_path / SPOOL}: somebody cut it to 0 bytes" if seen else f"{tmp_path / SPOOL}: damaged in one place"
    ]
    os.truncate(tmp_path / SPOOL, 0)  # and again, at the very end
    assert shipment.send() == 0
    whole = [(step, value) for step, value in expected(40) if step not in (10, 11)]
    assert stored(tracker, run_id) == whole
    assert read_curves(tmp_path, lambda: tracker.history(run_id)) == {"train/m0": whole}
    writer.close()


def test_of_a_run_in_object_storage_nothing_is_shipped_that_another_may_compute_again(
    tracker: Tracker, run_id: str, tmp_path: Path
) -> None:
    spool(tmp_path, 0, 3)
    second = (tmp_path / SPOOL).read_bytes().index(b"\n", 90) + 1
    (tmp_path / STORED).write_text(str(second))
    owned = False
    running = Recorder(tracker, run_id, tmp_path, lambda _: None, lambda: owned)
    with pytest.raises(WorkError, match="its metrics are safe in"):
        running.close()
    assert stored(tracker, run_id) == []
    assert ship(tracker, run_id, tmp_path) == 2
    (tmp_path / STORED).write_text(str((tmp_path / SPOOL).stat().st_size))
    assert ship(tracker, run_id, tmp_path) == 1
    assert stored(tracker, run_id) == expected(3)


def test_the_database_lies_in_the_project(settings: Settings, tracker: Tracker) -> None:
    assert tracker._client.search_experiments()
    assert (settings.state / "mlflow.db").exists()
