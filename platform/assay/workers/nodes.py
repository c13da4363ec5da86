"""The nodes of a Ray cluster: their slots, which are free, and whether trainings can run there at all.

Everything here needs a connected Ray.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from assay.config.experiment import TrainConfig
from assay.errors import AssayError, InputError, Unavailable, last_line
from assay.log import Log, counted
from assay.workers.deaths import pause
from assay.workers.plan import Plan, Slots, plan
from assay.workers.ray_private import free_resources

POLL_SECONDS = 2.0
SETTLE_SECONDS = 10.0
"""For this long the slots of a training that has just ended may still count as taken."""
NODE_SECONDS = 600.0
"""For this long a run whose node died waits for another."""
ANSWER_SECONDS = 60.0
"""For this long a node may be silent when it is inspected."""
PACKAGES = ("ray", "torch", "numpy")
"""Packages whose versions must be the same on all nodes, which exchange sums."""


def slots(train: TrainConfig, wait: bool, log: Log) -> Slots:
    """The slots of the cluster; if `wait`, once they are enough for the workers, requested from an autoscaler."""
    requested = False
    while True:
        found = _total()
        try:
            plan(train, found)
        except InputError as error:
            if wait:
                if not requested:
                    _request_slots(train)
                    log(f"waiting for the cluster to grow ({error})")
                requested = True
                time.sleep(POLL_SECONDS)
                continue
        return found


def wait_for_free(chosen: Plan, seconds: float | None, log: Log, stopped: Callable[[], bool]) -> None:
    """Return once the workers of a plan have room.

    Raises:
        Unavailable: after these seconds; None: never.
        Interrupted: a stop was requested.
    """
    began, logged = time.monotonic(), False
    ranks = max(chosen.workers, 1)
    while not _fits(chosen, ranks, free := _free()):
        waited, line = time.monotonic() - began, _room(chosen, ranks, free)
        if seconds is not None and waited > seconds:
            raise Unavailable(f"the cluster has no room: {line}: try again later, or wait for it with ASSAY_WAIT=1")
        if not logged and waited > SETTLE_SECONDS:
            logged = True
            log(f"waiting for room on the cluster: {line}")
        pause(POLL_SECONDS, stopped)


def require_nodes(folders: Mapping[str, Path], store: str | None) -> None:
    """Refuse a cluster whose nodes differ, or cannot reach what they must share.

    Args:
        folders: those that all nodes must see, by the setting that names them.
        store: object storage that all nodes must reach.

    Raises:
        InputError: one line for the first node that does not fit, with the fix.
    """
    marks = {name: folder / f".seen-{secrets.token_hex(8)}" for name, folder in folders.items()}
    try:
        for mark in marks.values():
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        here = inspect_node({}, None)
        for node, seen in _on_all_nodes({name: str(mark) for name, mark in marks.items()}, store):
            _require_same(node, seen, here)
            for name in seen["missing"]:
                raise InputError(
                    f"{name} {folders[name]}: node {node} does not see this folder: use one that all nodes share"
                    + (", or s3://bucket/prefix" if name == "ASSAY_STORAGE" else "")
                )
            if seen["store"]:
                raise InputError(f"ASSAY_STORAGE: from node {node}: {seen['store']}")
    finally:
        for mark in marks.values():
            mark.unlink(missing_ok=True)


def inspect_node(marks: Mapping[str, str], store: str | None) -> dict[str, Any]:
    """The versions, the code and the folders of the node that runs this."""
    problem = ""
    if store is not None:
        from assay.storage.object_store import ObjectStore

        try:
            ObjectStore(store).list("seen")
        except AssayError as error:
            problem = str(error)
    return {
        "versions": {name: version(name) for name in PACKAGES},
        "code": _code(),
        "missing": [name for name, mark in marks.items() if not Path(mark).exists()],
        "store": problem,
    }


def node_count() -> int:
    return len(_alive())


def _require_same(node: str, seen: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for name, found in seen["versions"].items():
        if found != here["versions"][name]:
            raise InputError(
                f"node {node} has {name} {found}, this one {here['versions'][name]}: "
                "install the versions of constraints.txt on every node"
            )
    if seen["code"] != here["code"]:
        raise InputError(f"node {node} runs different code of Assay: use `assay submit`, which sends the code")


def _on_all_nodes(marks: Mapping[str, str], store: str | None) -> list[tuple[str, dict[str, Any]]]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = []
    for node in _alive():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(inspect_node).options(num_cpus=0, scheduling_strategy=there)
        asked.append((node["NodeManagerAddress"], task.remote(dict(marks), store)))
    found = []
    for address, answer in asked:
        try:
            found.append((address, ray.get(answer, timeout=ANSWER_SECONDS)))
        except ray.exceptions.RayError as error:  # a node that dies now, too
            raise Unavailable(f"node {address} of the cluster does not answer ({last_line(error)})") from None
    return found


def _alive() -> list[dict[str, Any]]:
    """The nodes that can run workers; a head without slots only directs."""
    import ray

    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1]  # type: ignore[no-untyped-call]


def _total() -> Slots:
    nodes = [node["Resources"] for node in _alive()]
    names = (key.split(":")[1] for node in nodes for key in node if key.startswith("accelerator_type:"))
    each = _each(nodes)
    return Slots(sum(c for c, _ in each), sum(g for _, g in each), next(names, "gpu"), nodes=tuple(each))


def _free() -> list[tuple[int, int]]:
    ids = {node["NodeID"] for node in _alive()}
    free = free_resources()
    return _each([found for node, found in free.items() if node in ids])


def _each(nodes: Sequence[Mapping[str, float]]) -> list[tuple[int, int]]:
    return [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]


def _fits(chosen: Plan, ranks: int, free: Sequence[tuple[int, int]]) -> bool:
    room = (min(cpus // chosen.threads, gpus) if chosen.gpu else cpus // chosen.threads for cpus, gpus in free)
    return sum(room) >= ranks


def _room(chosen: Plan, ranks: int, free: Sequence[tuple[int, int]]) -> str:
    kind, place = ("GPUs", 1) if chosen.gpu else ("CPU cores", 0)
    total = _total()
    have = f"{sum(node[place] for node in free)} of {(total.cpus, total.gpus)[place]} {kind} are free"
    return f"{ranks} workers with {counted(chosen.threads, 'thread')} each are needed; {have}"


def _request_slots(train: TrainConfig) -> None:
    """Request slots from the cluster's autoscaler; a cluster of fixed size ignores it."""
    from ray.autoscaler.sdk import request_resources

    kind = {"GPU": 1} if train.device == "gpu" else {"CPU": 1}
    request_resources(bundles=[dict(kind) for _ in range(max(train.workers, 1))])


def _code() -> str:
    """One hash of the code of this package."""
    package, total = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        total.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
