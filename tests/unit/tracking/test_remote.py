"""The other process does what the tracker does here, and ends with the one that started it."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from assay.errors import InputError, Unavailable
from assay.settings import Settings
from assay.tracking import remote
from assay.tracking.provenance import Provenance
from assay.tracking.recorder import Recorder
from assay.tracking.remote import CALLS, OtherProcess, TrackingError, open_tracker
from assay.tracking.tracker import Tracker
from assay.train.folder import SPOOL
from assay.train.spool import Spool

PROVENANCE = Provenance(
    {"fingerprint": "f" * 64, "commit": "c" * 40, "dataset": "points", "dataset_hash": "d.dir", "kind": "run"},
    {"train": {"epochs": 2, "lr": 0.1}},
    "",
    {"torch": "2"},
)


@pytest.fixture(scope="module")
def other(settings: Settings) -> Iterator[OtherProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "_other", None)
        remote.start(settings.root)
        assert remote._other is not None
        yield remote._other


def pid(other: OtherProcess) -> int:
    return other._life._process.pid


@pytest.fixture
def far(other: OtherProcess, settings: Settings) -> Tracker:
    return open_tracker(settings)


def test_every_method_that_talks_to_mlflow_is_called_there() -> None:
    """The others are made of them: what they call of the client would connect this process, too."""
    for name, method in inspect.getmembers(Tracker, inspect.isfunction):
        if name not in CALLS and not name.startswith("_"):
            assert "_client" not in inspect.getsource(method), name


def test_a_run_is_the_same_from_both_sides(far: Tracker, tracker: Tracker, tmp_path: Path) -> None:
    run_id = far.create("remote", PROVENANCE)
    far.log_points(run_id, [("val/loss", 0.25, 1, 3), ("val/odd", float("inf"), 1, 3)])
    far.log_points(run_id, [("train/loss", 0.5, 1_700_000_000_000, 1)])
    far.log_bytes(run_id, "pictures/a.png", b"\x89PNG\0\xff")
    far.set_tags(run_id, {"assay.colour": "blue"})
    far.set_status(run_id, "FINISHED", "done")
    assert far.get(run_id) == tracker.get(run_id)
    assert far.find("remote", "f" * 64) == tracker.find("remote", "f" * 64)
    assert far.find("remote", "e" * 64) is None
    assert far.newest("run", "remote", 5) == tracker.newest("run", "remote", 5)
    assert far.read_bytes(run_id, "pictures/a.png") == b"\x89PNG\0\xff"
    assert far.names(run_id, "pictures") == ["a.png"]
    run = far.get(run_id)
    assert (run.info.status, run.data.tags["assay.colour"], run.data.metrics["val/loss"]) == ("FINISHED", "blue", 0.25)
    assert run.data.params["train.epochs"] == "2"


def test_errors_are_those_of_the_tracker(far: Tracker, tracker: Tracker) -> None:
    with pytest.raises(InputError) as there:
        far.get("0" * 32)
    with pytest.raises(InputError) as here:
        tracker.get("0" * 32)
    assert str(there.value) == str(here.value)
    run_id = far.create("remote", PROVENANCE)
    with pytest.raises(InputError, match="has no record.json"):
        far.record(run_id)
    with pytest.raises(TrackingError, match="Traceback"):
        far.set_status(run_id, "NO SUCH STATUS")


def test_another_project_has_a_tracker_of_its_own(other: OtherProcess, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    assert type(open_tracker(Settings(project=tmp_path))) is Tracker


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_is_killed_or_stands_still_is_replaced_and_each_point_arrives_once(
    far: Tracker, tracker: Tracker, other: OtherProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(remote, "SILENT_SECONDS", 2.0)
    run_id = far.create("remote", PROVENANCE)
    running = Recorder(far, run_id, tmp_path, lambda _: None)
    spool = Spool(tmp_path / SPOOL)
    spool.append(1, {"train/loss": 0.5})
    far.unfinished()
    os.kill(pid(other), number)
    spool.append(2, {"train/loss": 0.25})
    spool.close()
    running.close()
    far.set_status(run_id, "FINISHED")
    assert [(point[3], point[1]) for point in tracker.history(run_id)] == [(1, 0.5), (2, 0.25)]
    assert tracker.get(run_id).info.status == "FINISHED"


DIES = "import sys; sys.stdin.readline(); sys.stdout.write('{\"res'); sys.stdout.flush()"
ANSWERS = "import sys; sys.stdin.readline(); print('{\"result\": true}', flush=True); sys.stdin.readline()"
WAITS = "import time\nwhile True: print(flush=True); time.sleep(0.1)"


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., OtherProcess]]:
    """Makes an `OtherProcess` of programs, one a life, the last of them for all that follow."""
    made: list[OtherProcess] = []
    life = remote._Life

    def make(*programs: str) -> OtherProcess:
        left = list(programs)

        class Scripted(life):  # type: ignore[misc,valid-type]
            def __init__(self, _command: object) -> None:
                super().__init__([sys.executable, "-Sc", left.pop(0) if left[1:] else left[0]])

        monkeypatch.setattr(remote, "_Life", Scripted)
        made.append(OtherProcess(Path(), draws=False))
        return made[-1]

    yield make
    for process in made:
        process._life.kill()


def test_a_call_in_whose_middle_it_dies_is_made_again_if_that_makes_nothing_twice(
    lives: Callable[..., OtherProcess],
) -> None:
    assert lives(DIES, DIES, ANSWERS).call("has_runs", {}) is True
    once = lives(DIES, ANSWERS)
    with pytest.raises(Unavailable, match="has ended"):
        once.call("begin", {})
    assert once.call("has_runs", {}) is True
    with pytest.raises(Unavailable, match="has ended"):
        lives(DIES).call("has_runs", {})


def test_it_is_not_waited_for_long_once_a_signal_has_asked_to_end(
    lives: Callable[..., OtherProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store, in whose hands it is, may take minutes to give up."""
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(remote, "asked_to_end", lambda: True)
    waiting = lives(WAITS)
    for _ in range(2):
        with pytest.raises(Unavailable, match="too long"):
            waiting.call("has_runs", {})


def test_an_interrupted_call_does_not_answer_the_next_one(
    far: Tracker, other: OtherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a call is under way: the run's last status is set by the same process right after."""
    with monkeypatch.context() as patch:
        patch.setattr(other, "_wait", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            far.find("remote", "e" * 64)
    assert isinstance(far.unfinished(), list)
    with pytest.raises(InputError, match="no run"):
        far.get("0" * 32)


def test_it_ends_with_the_process_that_started_it(settings: Settings) -> None:
    """Killed by -9 or not, while a signal for the group of both leaves it at work."""
    program = f"""if 1:
    import os, sys, time
    from pathlib import Path
    from assay.settings import Settings
    from assay.tracking import remote
    remote.start(Path({str(settings.root)!r}))
    remote.open_tracker(Settings(project=Path({str(settings.root)!r}))).unfinished()
    print(remote._other._life._process.pid, flush=True)
    time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        there = psutil.Process(int(started.stdout.readline()))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            there.send_signal(number)
        assert there.is_running()
        os.kill(started.pid, signal.SIGKILL)
        there.wait(30)
