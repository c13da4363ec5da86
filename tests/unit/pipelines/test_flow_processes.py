"""A flow is dead when its process is: not because a clock was set, and not because another machine says so."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from prefect.client.schemas.objects import State, StateType

from assay.files import write_json
from assay.owner import Owner
from assay.settings import Settings
from pipelines.runtime import paging, reaper
from pipelines.runtime.flow_processes import register_process, registered_processes
from pipelines.runtime.paging import every
from pipelines.runtime.reaper import Reaper

ONE, TWO, THREE, *_ = IDS = [str(uuid.UUID(int=number)) for number in range(5)]


class Server:
    """Prefect's server, as far as the reaper asks it: runs by their state, in pages."""

    def __init__(self, states: Mapping[str, StateType]) -> None:
        self.runs = [SimpleNamespace(id=name, name=name, state=State(type=state)) for name, state in states.items()]
        self.set: list[tuple[str, str]] = []

    def read_flow_runs(self, limit: int, offset: int, **_: Any) -> list[Any]:
        return self.runs[offset : offset + limit]

    def set_flow_run_state(self, run_id: str, state: Any, force: bool) -> Any:
        self.set.append((run_id, state.type.value))
        return SimpleNamespace(status=SimpleNamespace(value="ACCEPT"))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "params.yaml").touch()
    monkeypatch.setattr(Reaper, "_notify", lambda *_: None)
    return Settings(project=tmp_path)


def reaping(settings: Settings, server: Any) -> Reaper:
    return Reaper(settings, server, lambda _: None)


def by(settings: Settings, flow_run: str, owner: Owner) -> Path:
    """Register a flow run of that process."""
    register_process(settings.root, flow_run)
    file = settings.state / "flows" / f"{flow_run}.json"
    write_json(file, {"flow_run": flow_run, "owner": owner.plain()})
    return file


def test_a_stepped_clock_kills_no_flow(site: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    register_process(site.root, ONE)
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600.0)
    server = Server({ONE: StateType.RUNNING})
    reaping(site, server).check_processes(at_once=True)
    assert server.set == []
    (process,) = registered_processes(site.root)
    assert process.alive


def test_each_machine_buries_its_own_dead(site: Settings) -> None:
    here = Owner.here()
    dead = by(site, ONE, replace(here, started=1))
    theirs = by(site, TWO, replace(here, machine="another boot or machine", started=1))
    container = by(site, THREE, replace(here, namespace="another", started=1))
    server = Server(dict.fromkeys(IDS[:3], StateType.RUNNING))
    reaping(site, server).check_processes(at_once=True)
    assert server.set == [(ONE, "CRASHED")]
    assert not dead.exists()
    assert theirs.exists()
    assert container.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"flow_run": "x", "pid": 1, "started": 2.5}', '{"owner": {}}'])
def test_a_file_that_names_no_process_is_passed_over(site: Settings, text: str) -> None:
    file = by(site, "x", Owner.here())
    file.write_text(text)
    assert list(registered_processes(site.root)) == []


def test_more_flows_than_the_server_answers_at_once_are_all_seen(
    site: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE", 2)
    for name in IDS:
        by(site, name, replace(Owner.here(), started=1))
    server = Server(dict.fromkeys(IDS, StateType.RUNNING))
    reaping(site, server).check_processes(at_once=True)
    assert sorted(name for name, _ in server.set) == IDS
    assert every(server.read_flow_runs) == server.runs


def test_a_run_is_lost_by_what_the_reaper_waited_not_by_the_clocks(
    site: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(reaper, "time", SimpleNamespace(monotonic=lambda: now[0]))
    server = Server({ONE: StateType.PENDING})
    watching = reaping(site, server)
    for seconds, lost in ((0.0, []), (59.0, []), (2.0, [(ONE, "CRASHED")])):
        now[0] += seconds
        watching.crash_lost_runs()
        assert server.set == lost


def test_the_file_holds_nothing_of_the_wall_clock(site: Settings) -> None:
    register_process(site.root, "x")
    (file,) = (site.state / "flows").glob("*.json")
    assert Owner.read(json.loads(file.read_text())["owner"]) == Owner.here()
