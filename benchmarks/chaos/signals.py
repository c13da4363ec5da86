"""SIGTERM and Ctrl-C at random moments of a training or a flow, once and twice: how fast it ends, what continues."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.chaos.kills import undisturbed
from benchmarks.chaos.tools.project import FLOW_SECONDS, call, chance, commands, copied, end, flow, say, start, template
from benchmarks.chaos.tools.story import Story, differences, read_story, running
from benchmarks.common import figure, spread

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ONCE_SECONDS = 5.0
"""After the step in hand."""
TWICE_SECONDS = 2.0
"""From the second signal: at once, and what the system takes to clear a process of this size away."""


def main(times: str = "30", experiments: str = "digits-0,digits-1,digits-2,scenes-0,gan-0,paint-0") -> None:
    names, chosen = experiments.split(","), chance("signals")
    faults: list[dict[str, Any]] = []
    seconds: dict[str, list[float]] = {"once": [], "twice": []}
    wholes: dict[str, tuple[Story, list[float]]] = {}
    with template({name.partition("-")[0] for name in names}) as project:
        for number in range(int(times)):
            name = names[number % len(names)]
            if name not in wholes:
                with copied(project, "whole") as copy:
                    wholes[name] = undisturbed(copy, name)
            with copied(project, "stopped") as copy:
                twice, by_flow = number % 3 == 2, number % 5 == 4
                took = seconds["twice" if twice else "once"]
                faults += stopped(copy, name, wholes[name], chosen, twice, by_flow, took)
            say("signals", number + 1, int(times), faults)
    figure(
        "chaos signals", times=int(times), faults=dict(Counter(fault["kind"] for fault in faults)), first=faults[:20],
        **{f"seconds_{kind}": spread(values, 2) for kind, values in seconds.items() if values},
    )  # fmt: skip


def stopped(
    project: Path, name: str, whole: tuple[Story, list[float]], chosen: random.Random, twice: bool, by_flow: bool,
    seconds: list[float],
) -> list[dict[str, Any]]:  # fmt: skip
    """Stop a training or a flow at a random moment, then give the same commands to their end; what is wrong."""
    story, usual = whole
    first, *others = [flow(name)] if by_flow else commands(name)
    longest = sum(usual) + FLOW_SECONDS if by_flow else usual[0]
    at, faults = [name, "flow" if by_flow else "train", "twice" if twice else "once"], []
    number = chosen.choice(NUMBERS)
    began = time.monotonic()
    child = start(project, first)
    time.sleep(chosen.uniform(0.3, longest))
    sent = time.monotonic()
    if child.poll() is None:
        os.killpg(child.pid, number)  # as a terminal does
        if twice:
            time.sleep(0.3)
            sent = time.monotonic()
            if child.poll() is None:
                os.killpg(child.pid, number)
        ended = end(project, child, began)
        seconds.append(time.monotonic() - sent)
        most = TWICE_SECONDS if twice else ONCE_SECONDS
        if seconds[-1] > most:
            faults.append({"kind": "slow", "at": at, "what": f"{seconds[-1]:.1f} s after {number.name}"})
        if ended.code not in (0, 130, -number, -signal.SIGTERM):
            faults.append({"kind": "exit", "at": at, "what": f"{ended.code} after {number.name}: {ended.said[-300:]}"})
        if "Traceback" in ended.said or "core dumped" in ended.said:
            faults.append({"kind": "traceback", "at": at, "what": ended.said[-600:]})
    for command in (first, *others):
        again = call(project, command)
        if again.code != 0:
            faults.append({"kind": "stuck", "at": [*at, command[3]], "what": again.said[-300:]})
    if left := running(project):
        faults.append({"kind": "running", "at": at, "what": f"{left} runs say RUNNING"})
    found = differences(story, read_story(project, name))
    return faults + [{"kind": kind, "at": at, "what": what} for kind, what in found.items()]
