"""Whatever is killed, the same command works, and the next one leaves nothing of it: no folder, no torn file."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import BIN, QUICK, Project
from tests.support.bad_images import make_folder

MOMENTS = (0.5, 0.75, 0.9)
"""Parts of the time that a verb takes undisturbed, after which it is killed."""


class Killed:
    """Verbs of a project as programs, with a folder for temporary files that nobody else uses."""

    def __init__(self, project: Project, temporary: Path) -> None:
        self.project, self.temporary = project, temporary
        temporary.mkdir()
        self.environment = {**project.environment, "TMPDIR": str(temporary)}

    def run(self, *words: str) -> dict[str, object]:
        done = subprocess.run(
            [BIN / "assay", *words, "--json"], cwd=self.project.root, env=self.environment, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def kill(self, seconds: float, *words: str) -> None:
        """Kill a verb with all of its group, after so many seconds."""
        with subprocess.Popen(
            [BIN / "assay", *words], cwd=self.project.root, env=self.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as child:  # fmt: skip
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)

    def left(self) -> list[str]:
        """What is neither the project's nor of use to the next command."""
        state, data = self.project.root / ".assay", self.project.root / "data"
        caches = self.temporary.glob("torchinductor_*")  # torch's own, one for all programs
        found = [
            *set(self.temporary.iterdir()).difference(caches),
            *(state / "tmp").glob("*"),
            *(state / "runs").glob("[0-9a-f]*"),
        ]
        for folder in (self.project.root, data, state, *(self.project.root / "results").glob("*/")):
            found += [path for path in folder.glob(".*-*") if path.name not in (".pre-commit-config.yaml",)]
        return [str(path) for path in found]


@pytest.mark.thorough
@pytest.mark.timeout(3000)
def test_nothing_is_left_of_kills(project: Project, tmp_path: Path) -> None:
    killed = Killed(project, tmp_path / "temporary")
    make_folder(project.root / "raw", 48, 0)
    training = ("train", "digits", *(word for pair in QUICK for word in ("--set", pair)))
    run = str(killed.run(*training)["run_id"])
    new = (*training, "--new")
    for verb in (new, ("evaluate", run), ("register", run), ("data", "add", "pets", "raw")):
        began = time.monotonic()
        if verb[0] == "train":
            killed.run(*verb)
        else:
            killed.run("evaluate", run, "--split", "val")
        whole = time.monotonic() - began
        for part in MOMENTS:
            killed.kill(part * whole, *verb)
            if verb[0] == "data":
                (project.root / "raw/apple" / f"{part}.png").write_bytes(
                    next((project.root / "raw").rglob("*.png")).read_bytes()
                )
        killed.run(*(training if verb[0] == "train" else verb))
        killed.run("runs")
        unfinished = {str(row["run_id"]) for row in killed.run("runs")["runs"] if row["status"] != "FINISHED"}  # type: ignore[attr-defined]
        assert [path for path in killed.left() if Path(path).name not in unfinished] == []
