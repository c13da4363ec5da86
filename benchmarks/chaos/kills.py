"""kill -9 at random moments over every process of a command, from its start to the registry, over the four families.

Beside each disturbed experiment its twin that nobody disturbs: the same weights, and the same points in the store.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.chaos.tools.project import (
    EXPERIMENTS,
    LIMIT,
    call,
    chance,
    commands,
    copied,
    end,
    start,
    template,
)
from benchmarks.chaos.tools.roles import ROLES, find, strike
from benchmarks.chaos.tools.story import Story, differences, read_story, running
from benchmarks.common import figure

TRIES = 12
"""Times that a command is given, at most, until it succeeds."""


def main(kills: str = "100", experiments: str = ",".join(EXPERIMENTS)) -> None:
    """So many kills, spread over `experiments` (separated by commas)."""
    names, chosen = experiments.split(","), chance("kills")
    faults: list[dict[str, Any]] = []
    struck: Counter[str] = Counter()
    wholes: dict[str, tuple[Story, list[float]]] = {}
    with template({name.partition("-")[0] for name in names}) as project:
        while sum(struck.values()) < int(kills):
            name = chosen.choice(names)
            if name not in wholes:
                with copied(project, "whole") as copy:
                    wholes[name] = undisturbed(copy, name)
            with copied(project, "killed") as copy:
                faults += disturbed(copy, name, wholes[name], chosen, struck)
    figure(
        "chaos kills", kills=sum(struck.values()), by_role=dict(struck), experiments=len(wholes),
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


def disturbed(
    project: Path, name: str, whole: tuple[Story, Sequence[float]], chosen: random.Random, struck: Counter[str]
) -> list[dict[str, Any]]:
    """Take an experiment from training to the registry through some kills; what is wrong at the end."""
    story, seconds = whole
    faults: list[dict[str, Any]] = []
    for command, usual in zip(commands(name), seconds, strict=True):
        victims = [chosen.choice(ROLES) for _ in range(chosen.choice((0, 1, 1, 2)))]
        for attempt in range(TRIES):
            role = victims[attempt] if attempt < len(victims) else None
            fault = once(project, command, role, chosen.uniform(0, usual), struck)
            if isinstance(fault, str):
                faults.append({"kind": fault.partition(":")[0], "at": [name, command[3], role], "what": fault})
            elif fault and role is None:
                break
            elif fault:
                continue
        else:
            faults.append({"kind": "stuck", "at": [name, command[3]], "what": f"not done after {TRIES} tries"})
            return faults
        if left := running(project):
            faults.append({"kind": "running", "at": [name, command[3]], "what": f"{left} runs say RUNNING"})
    found = differences(story, read_story(project, name))
    return faults + [{"kind": kind, "at": [name], "what": what} for kind, what in found.items()]


def once(project: Path, command: Sequence[str], role: str | None, moment: float, struck: Counter[str]) -> bool | str:
    """Give a command once, and kill one of its processes after a while; whether it succeeded, or what is wrong."""
    began = time.monotonic()
    child = start(project, command)
    if role is not None:
        time.sleep(moment)
        while child.poll() is None and not (there := find(child.pid)).get(role):
            if time.monotonic() - began > moment + 5:  # none of that kind: the first process instead
                role = "driver"
            time.sleep(0.02)
        if child.poll() is None:
            strike(role, there[role][-1])
            struck[role] += 1
    ended = end(project, child, began)
    if ended.hung:
        return f"hung: {' '.join(command[2:])} went on for {LIMIT:.0f} s after {role} was killed: {ended.said[-300:]}"
    if "Traceback" in ended.said:
        return f"traceback: after {role} was killed: {ended.said[-600:]}"
    if ended.code not in (0, 1, 130, -9):
        return f"exit: {ended.code} after {role} was killed: {ended.said[-300:]}"
    return ended.code == 0
