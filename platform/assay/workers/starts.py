"""Where each start of a run's workers took up the training, and on what processor: a file that rank 0 appends to.

Only the workers know it: they choose the checkpoint. The file is there before the first of their steps, so that a kill
at any later moment leaves it behind.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from assay.sealed import read_lines, sealed
from assay.train.folder import STARTS


@dataclass(frozen=True)
class Start:
    """`step` is the number of steps that lay behind. `session` is the run's that started the workers."""

    session: int
    step: int
    processor: str


def note_start(folder: Path, session: int, step: int, gpu: bool) -> None:
    """Append a start of this process. A line that a kill has torn is ended first."""
    path = folder / STARTS
    torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size
    with path.open("ab") as file:
        line = sealed({"session": session, "step": step, "processor": processor(gpu)})
        file.write(b"\n" + line if torn else line)
        file.flush()
        os.fsync(file.fileno())


def read_starts(folder: Path) -> Iterator[Start]:
    """The starts that the run in a folder has noted. Damaged lines are left out."""
    path = folder / STARTS
    for line in read_lines(path) if path.exists() else ():
        if line.data is not None:
            yield Start(int(line.data["session"]), int(line.data["step"]), str(line.data["processor"]))


def processor(gpu: bool) -> str:
    """What computes here: the model of the CPU with the instructions that torch uses of it, and that of the GPU."""
    import torch

    cpu = f"{_cpu_model()} ({torch.backends.cpu.get_cpu_capability()})"
    return f"{torch.cuda.get_device_name()}, {cpu}" if gpu else cpu


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
