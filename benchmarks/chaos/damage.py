"""Flipped bits and cut files in all that is read again: each is found or harmless, and never silently other figures.

A case damages one file in a copy of a project and lets the program read it: by the command that would, or by the
function through which all commands do. What it then has must be what it has of the undamaged project.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.full import add_search
from benchmarks.chaos.tools.project import call, chance, copied, said_in, say, start, template
from benchmarks.chaos.tools.story import read_story
from benchmarks.common import environment, figure, run

NAME = "digits-0"
UNFINISHED = ("train", NAME, "--set", "seed=1", "--set", "train.epochs=10")
ARTIFACTS = ".assay/artifacts/*/{run}/artifacts"
Says = Callable[[str], None]


@dataclass(frozen=True)
class Kind:
    """Something that is damaged.

    Attributes:
        share: of all cases.
        files: which of a project's files, as patterns; `{run}` is the id of the champion's run.
        read: what the program reads from them. It may say that something is damaged, or raise an `AssayError`.
        agrees: whether what it read is harmless, given what it reads of the undamaged project.
    """

    share: float
    files: tuple[str, ...]
    read: Callable[[Path, Says], Any]
    agrees: Callable[[Any, Any], bool] = lambda found, whole: bool(found == whole)


def main(cases: str = "1000", kinds: str = "") -> None:
    """So many cases, spread over all kinds or over those that are named, separated by commas."""
    chosen_kinds = {name: KINDS[name] for name in kinds.split(",")} if kinds else KINDS
    chosen = chance("damage")
    found: dict[str, Counter[str]] = {}
    faults: list[dict[str, str]] = []
    with template(["digits"]) as project:
        _fill(project)
        for name, kind in chosen_kinds.items():
            found[name] = Counter()
            with copied(project, f"whole-{len(found)}") as copy:
                whole = kind.read(copy, lambda _: None)
            for number in range(max(2, round(int(cases) * kind.share))):
                flip = bool(number % 2)
                outcome, what = _case(project, f"{name}-{number}".replace(" ", "-"), kind, whole, flip, chosen)
                found[name][outcome] += 1
                if outcome not in ("found", "harmless"):
                    faults.append({"kind": name, "outcome": outcome, "what": what})
            say(f"damage, {name}", sum(map(Counter.total, found.values())), int(cases), faults)
    figure(
        "chaos damage", cases=sum(map(Counter.total, found.values())), faults=len(faults), first=faults[:20],
        **{name: dict(outcomes) for name, outcomes in found.items()},
    )  # fmt: skip


def _fill(project: Path) -> None:
    """One of all that can be damaged: a champion, a search, and a run that was stopped in the middle."""
    add_search(project)
    run(project, "dvc", "repro", "-q", f"register@{NAME}")
    for command in (["tune", "s"], ["tune", "s", "--apply"]):
        ended = call(project, [sys.executable, "-m", "assay", *command])
        assert ended.code == 0, ended.said[-1000:]
    began = time.monotonic()
    child = start(project, [sys.executable, "-m", "assay", *UNFINISHED])
    while not list(project.glob(".assay/runs/*/checkpoints/step-*/manifest.json")) and child.poll() is None:
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 130, said_in(project).read_text()


def _case(project: Path, name: str, kind: Kind, whole: Any, flip: bool, chosen: random.Random) -> tuple[str, str]:
    """Damage a file; `found`, `harmless`, or what is wrong, and where."""
    from assay.errors import AssayError

    with copied(project, name) as copy:
        run_id = json.loads((copy / "results" / NAME / "train.json").read_text())["run_id"]
        patterns = [pattern.format(run=run_id) for pattern in kind.files]
        files = [path for pattern in patterns for path in copy.glob(pattern) if path.is_file()]
        path = chosen.choice(sorted(path for path in files if path.stat().st_size))
        what = f"{path.relative_to(copy)}: {_damage(path, flip, chosen)}"
        said: list[str] = []
        try:
            found = kind.read(copy, said.append)
        except AssayError as error:
            return ("found", "") if str(error).strip() and "\n" not in str(error) else ("bad line", f"{what}: {error}")
        except Exception as error:
            return f"{type(error).__name__}", f"{what}: {error!s:.300}"
        if said:
            return "found", ""
        return ("harmless", "") if kind.agrees(found, whole) else ("silent", what)


def _damage(path: Path, flip: bool, chosen: random.Random) -> str:
    """Flip a bit or cut the end off, in the file itself or, as an editor does, in a new one of its name."""
    content = bytearray(path.read_bytes())
    position = chosen.randrange(len(content))
    if flip:
        content[position] ^= 1 << chosen.randrange(8)
    else:
        del content[position:]
    if chosen.random() < 0.5:
        path.unlink()
    else:
        path.chmod(0o644)
    path.write_bytes(content)
    return f"{'bit flipped in' if flip else 'cut at'} byte {position}"


# --- what reads them ---


def _settings(project: Path) -> Any:
    from assay.settings import Settings

    return Settings(project=project)


def _command(project: Path, words: tuple[str, ...], say: Says) -> None:
    """Give a command in this process. What it says of damage, or its refusal, counts as found."""
    from assay.errors import WorkError
    from tests.support.program import call as call_here

    done = call_here(words, project, environment(project))
    if done.returncode:
        raise WorkError(done.stderr.strip().splitlines()[-1])
    for line in done.stderr.splitlines():
        if any(word in line for word in ("damaged", "does not match", "missing", "not what was", "lack", "anew")):
            say(line)


def read_resumed(project: Path, say: Says) -> Any:
    """The same command goes on with the stopped run: its weights and points."""
    _command(project, UNFINISHED, say)
    story = read_story(project, NAME)
    return story.weights, story.points


def read_checkpoint(project: Path, say: Says) -> Any:
    from assay.train.checkpoint import Checkpoints, weights_sha256

    (folder,) = project.glob(".assay/runs/*/checkpoints")
    found = Checkpoints(folder, say).load()
    if found is None:
        return None
    step, state = found
    plain = {name: part for name, part in state.items() if name != "weights"}
    return step, weights_sha256(state["weights"]), repr(plain)


def read_search(project: Path, _: Says) -> Any:
    from assay.tune.journal import read_journal

    (path,) = project.glob(".assay/runs/*/journal.jsonl")
    return read_journal(path)[0]


def read_data(project: Path, say: Says) -> Any:
    """All samples and the card of the version that is recorded."""
    from assay.data.version import recorded_hash
    from assay.storage.dataset_versions import open_version

    dataset = open_version(_settings(project), "digits", recorded_hash(project, "digits"), lambda _: None)
    rows = []
    for split in dataset.card.samples:
        with dataset.split(split) as packed:
            rows.append([(bytes(packed.image(i)), repr(packed.row(i))) for i in range(len(packed))])
    return dataset.card, rows


def read_model(project: Path, say: Says) -> Any:
    """The champion's answer to its own example, and what was recorded with it."""
    import numpy as np

    from assay.scratch import scratch_folder
    from assay.tracking.registry import Registry
    from assay.tracking.tracker import Tracker

    registry = Registry(Tracker(_settings(project)))
    with scratch_folder(project) as folder:
        loaded, facts = registry.load(registry.named(NAME), folder)
        batch = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)
        return np.asarray(loaded.predict(batch)).tobytes(), dict(facts)


def read_record(project: Path, say: Says) -> Any:
    """`results/`, written again from the store by the commands that made them."""
    shutil.rmtree(project / "results" / NAME)
    for verb in ("train", "evaluate", "register"):
        _command(project, (verb, NAME), say)
    return {path.name: path.read_bytes() for path in sorted((project / "results" / NAME).rglob("*")) if path.is_file()}


def read_results(project: Path, say: Says) -> Any:
    """What commands and flows read of `results/`. Of the metrics DVC has the hash, and evaluates again."""
    from ruamel.yaml import YAML

    from assay.usecases.helpers.results import ExperimentResults, SearchResults

    results = ExperimentResults.of(project, NAME)
    outs = YAML(typ="safe").load(project / "dvc.lock")["stages"][f"evaluate@{NAME}"]["outs"]
    recorded = {out["path"]: out["md5"] for out in outs}[str(results.metrics.relative_to(project))]
    if hashlib.md5(results.metrics.read_bytes()).hexdigest() != recorded:
        say("the metrics are not those that DVC recorded")
    read = [results.read(file) for file in (results.record, results.metrics, results.model)]
    return [*read, SearchResults.of(project, "s").read()]


def begins(found: list[Any], whole: list[Any]) -> bool:
    """A journal that was cut at the end of a line is the search at an earlier moment; it repeats what came later."""
    return found == whole[: len(found)]


KINDS: Mapping[str, Kind] = {
    "checkpoint": Kind(0.2, (".assay/runs/*/checkpoints/*/*",), read_checkpoint),
    "stopped run": Kind(0.15, (".assay/runs/*/spool*", ".assay/runs/*/*.json*", ".assay/runs/*/steps"), read_resumed),
    "journal": Kind(0.15, (".assay/runs/*/journal.jsonl",), read_search, begins),
    "packed data and card": Kind(0.2, ("data/digits/*", ".assay/datasets/*.dir/*"), read_data),
    "model": Kind(0.1, (f"{ARTIFACTS}/model/*", f"{ARTIFACTS}/model/data/*"), read_model),
    "record": Kind(
        0.1,
        (f"{ARTIFACTS}/*.json", *(f"{ARTIFACTS}/{part}/*" for part in ("gate", "pictures", "provenance", "weights"))),
        read_record,
    ),
    "results": Kind(0.1, ("results/*/*.json", "results/searches/s/*.json"), read_results),
}
