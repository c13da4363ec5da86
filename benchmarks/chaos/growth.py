"""Many short runs, one command each and all in one process: nothing grows but the tracking store."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.chaos.tools.project import call, say, template
from benchmarks.common import REPOSITORY, environment, figure

ONE = ("--new", "--set", "train.epochs=1")
WITH_RAY = 10
"""Every so many commands one trains on a worker of Ray."""
MANY = """
import sys, resource, gc, psutil
from pathlib import Path
from assay.program import start_program
from assay.settings import Settings
from assay.usecases.helpers.training_progress import TrainingProgress
from assay.usecases.train import TrainRequest, train
start_program()
settings = Settings(project=Path.cwd())
me = psutil.Process()
for number in range(int(sys.argv[1])):
    train(TrainRequest("digits-0", ("train.epochs=1",), new=True), settings, TrainingProgress(lambda _: None))
    if number >= int(sys.argv[1]) // 4:
        gc.collect()
        print(me.memory_info().rss, me.num_fds(), me.num_threads(), len(me.children(recursive=True)), flush=True)
"""
STORE = ("mlflow.db", "artifacts", "hashes.json")
"""Below `.assay/`: what is meant to grow."""


def main(commands: str = "200", in_one: str = "50") -> None:
    with template(["digits"]) as project:
        _one_by_one(project, int(commands))
    with template(["digits"]) as project:
        _in_one_process(project, int(in_one))


def _one_by_one(project: Path, count: int) -> None:
    """One command a run."""
    with tempfile.TemporaryDirectory(prefix="assay-growth-") as temporary:
        early: Counter[str] = Counter()
        for number in range(count):
            workers = str(int(number % WITH_RAY == 1))
            command = [sys.executable, "-m", "assay", "train", "digits-0", *ONE, "--workers", workers]
            ended = call(project, command, {"TMPDIR": temporary})
            assert ended.code == 0, ended.said[-1000:]
            say("growth", number + 1, count, [])
            if number == min(WITH_RAY, count // 2):  # each kind has run
                early = _things(project, Path(temporary))
        late = _things(project, Path(temporary))
    grown = {name: late[name] - early[name] for name in late | early if late[name] > early[name]}
    figure("chaos growth, commands", runs=count, things=dict(late), grown=grown)


def _things(project: Path, temporary: Path) -> Counter[str]:
    """How many files, sockets and processes there are, by place."""
    found: Counter[str] = Counter()
    for path in (project / ".assay").rglob("*"):
        if not path.relative_to(project / ".assay").as_posix().startswith(STORE):
            found[f".assay/{path.relative_to(project / '.assay').parts[0]}"] += 1
    found["temporary files"] = sum(1 for _ in temporary.rglob("*"))
    found["shared memory"] = sum(1 for _ in Path("/dev/shm").iterdir())
    found["sockets of Ray"] = sum(path.is_socket() for path in (project / ".assay").rglob("*"))
    here = str(project)
    found["processes"] = sum(here in _command(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return found


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _in_one_process(project: Path, count: int) -> None:
    """All runs in one process, measured once the first quarter has warmed it up."""
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(count)],
        cwd=project,
        env=environment(REPOSITORY),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    first, last = rows[0], rows[-1]
    figure(
        "chaos growth, one process", runs=count, memory_ratio=round(last[0] / first[0], 4), files=last[1] - first[1],
        threads=last[2] - first[2], processes=last[3] - first[3],
    )  # fmt: skip
