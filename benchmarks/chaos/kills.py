"""kill -9 at random moments over every process of a command, from its start to the registry, over the four families.

The experiments go through three ways: commands on a store of their own, the same with a tracking server, and a flow.
Beside each disturbed experiment its twin that nobody disturbs: the same weights, and the same points in the store.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.tools.project import (
    EXPERIMENTS,
    FLOW_SECONDS,
    LIMIT,
    call,
    chance,
    commands,
    copied,
    end,
    flow,
    say,
    start,
    template,
)
from benchmarks.chaos.tools.roles import ROLES, find, strike
from benchmarks.chaos.tools.servers import Server, tracking_server
from benchmarks.chaos.tools.story import Story, differences, read_story, running
from benchmarks.common import figure

TRIES = 12
"""Times that a command is given, at most, until it succeeds."""
SERVER = "tracking server"
AWAY = 1.0
"""Seconds until a killed tracking server is started again."""


@dataclass(frozen=True)
class Way:
    """One way through an experiment: its commands, the seconds each usually takes, and how often each may be struck."""

    commands: Sequence[Sequence[str]]
    usual: Sequence[float]
    kills: Sequence[Sequence[int]]
    server: Server | None = None

    @property
    def variables(self) -> dict[str, str]:
        return {} if self.server is None else self.server.variables


def main(kills: str = "100", experiments: str = ",".join(EXPERIMENTS)) -> None:
    """So many kills, spread over `experiments` (separated by commas)."""
    names, chosen = experiments.split(","), chance("kills")
    faults: list[dict[str, Any]] = []
    struck: Counter[str] = Counter()
    ways: Counter[str] = Counter()
    wholes: dict[str, tuple[Story, list[float]]] = {}
    with template({name.partition("-")[0] for name in names}) as project:
        while sum(struck.values()) < int(kills):
            name, kind = chosen.choice(names), chosen.choice(("commands", "commands", "server", "flow"))
            if name not in wholes:
                with copied(project, "whole") as copy:
                    wholes[name] = undisturbed(copy, name)
            story, seconds = wholes[name]
            with copied(project, "killed") as copy, _way(copy, name, kind, seconds) as way:
                faults += disturbed(copy, name, story, way, chosen, struck)
            ways[kind] += 1
            say("kills", sum(struck.values()), int(kills), faults)
    figure(
        "chaos kills", kills=sum(struck.values()), by_role=dict(struck), experiments=len(wholes), ways=dict(ways),
        faults=dict(Counter(fault["kind"] for fault in faults)), first=faults[:20],
    )  # fmt: skip


def undisturbed(project: Path, name: str) -> tuple[Story, list[float]]:
    """What an experiment should be at its end, and the seconds that each command takes."""
    seconds = []
    for command in commands(name):
        ended = call(project, command)
        assert ended.code == 0, ended.said[-2000:]
        seconds.append(ended.seconds)
    return read_story(project, name), seconds


@contextmanager
def _way(project: Path, name: str, kind: str, seconds: Sequence[float]) -> Iterator[Way]:
    if kind == "flow":
        yield Way([flow(name)], [sum(seconds) + FLOW_SECONDS], [(2, 3, 4)])
        return
    often = [(1, 2, 3), (0, 1, 1), (0, 1, 1)]
    if kind == "commands":
        yield Way(commands(name), seconds, often)
        return
    with tracking_server(project) as server:
        yield Way(commands(name), seconds, often, server)


def disturbed(
    project: Path, name: str, story: Story, way: Way, chosen: random.Random, struck: Counter[str]
) -> list[dict[str, Any]]:
    """Take an experiment from training to the registry through some kills; what is wrong at the end."""
    faults: list[dict[str, Any]] = []
    for command, usual, often in zip(way.commands, way.usual, way.kills, strict=True):
        kills = chosen.choice(often)
        for attempt in range(TRIES):
            order = chosen.sample((*ROLES, SERVER), len(ROLES) + 1) if attempt < kills else []
            fault = once(project, command, way, order, chosen.uniform(0, usual), struck)
            if isinstance(fault, str):
                faults.append({"kind": fault.partition(":")[0], "at": [name, command[3], order], "what": fault})
            elif fault and not order:
                break
        else:
            faults.append({"kind": "stuck", "at": [name, command[3]], "what": f"not done after {TRIES} tries"})
            return faults
        if left := running(project):
            faults.append({"kind": "running", "at": [name, command[3]], "what": f"{left} runs say RUNNING"})
    found = differences(story, read_story(project, name))
    return faults + [{"kind": kind, "at": [name], "what": what} for kind, what in found.items()]


def once(
    project: Path, command: Sequence[str], way: Way, order: Sequence[str], moment: float, struck: Counter[str]
) -> bool | str:
    """Give a command once, and kill the first in this order that is there at that moment; success, or what is wrong."""
    began = time.monotonic()
    child, role = start(project, command, way.variables), None
    if order:
        time.sleep(moment)
        there = find(child.pid)
        role = next((role for role in order if there and (role in there or role == SERVER and way.server)), None)
    if role == SERVER and way.server is not None:
        way.server.cut(hanging=False)
        time.sleep(AWAY)
        way.server.back(hanging=False)
    elif role is not None:
        strike(role, there[role][-1])
    struck.update([role] if role else [])
    ended = end(project, child, began)
    if ended.hung:
        return f"hung: {' '.join(command[2:])} went on for {LIMIT:.0f} s after {role} was killed: {ended.said[-300:]}"
    if "Traceback" in ended.said:
        return f"traceback: after {role} was killed: {ended.said[-600:]}"
    if ended.code not in (0, 1, 130, -9):
        return f"exit: {ended.code} after {role} was killed: {ended.said[-300:]}"
    return ended.code == 0
