"""The surroundings of a worker: rank, device, and its files. The local version; Ray's is `workers/ray_context.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from assay.files import write_atomic
from assay.task import Picture
from assay.train.checkpoint import Checkpoints
from assay.train.folder import CHECKPOINTS, LOG, PICTURES, SPOOL, STEPS, STOP
from assay.train.spool import Spool


class LocalContext:
    """One process, no process group.

    Attributes:
        rank: 0 … world_size - 1; only rank 0 reports and saves.
        threads: CPU threads of this worker, for computing and for loading.
        compiled: whether `wrap` compiles modules with `torch.compile`.
        checkpoints: the saved states of the run, below its folder.
    """

    pretrained = True

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        threads: int,
        rank: int = 0,
        world_size: int = 1,
        compiled: bool = False,
    ) -> None:
        self.folder = folder
        self.device = device
        self.threads = threads
        self.rank = rank
        self.world_size = world_size
        self.compiled = compiled
        self.checkpoints = Checkpoints(folder / CHECKPOINTS, self.warn)
        self._spool: Spool | None = None

    def wrap(self, module: nn.Module) -> nn.Module:
        if self.compiled:
            module.compile()  # in place: the names of its parameters stay
        return module

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, rows: Tensor) -> Tensor:
        return rows

    def synchronize_buffers(self, module: nn.Module) -> None:
        pass

    def announce(self, steps: int) -> None:
        """Record how many steps the whole run has."""
        if self.rank == 0:
            write_atomic(self.folder / STEPS, str(steps).encode())

    def report(self, step: int, metrics: Mapping[str, float], kept: bool = False) -> None:
        """Record metrics at a step, in order and once. `kept`: they are of the weights that the run now keeps."""
        if self.rank:
            return
        if self._spool is None:
            self._spool = Spool(self.folder / SPOOL)
        self._spool.append(step, metrics, kept)

    def keep(self, step: int, picture: Picture) -> None:
        """Keep a picture of the training at a step."""
        if self.rank == 0:
            write_atomic(self.folder / PICTURES / f"step-{step:08d}-{picture.name}.png", picture.png)

    def flush(self) -> None:
        """Make the reported metrics survive a power cut; called before each checkpoint, so that no metric is lost."""
        if self._spool is not None:
            self._spool.sync()

    def stop_requested(self) -> bool:
        return (self.folder / STOP).exists()

    def log(self, line: str) -> None:
        """Write a line for people, into the run's log."""
        if self.rank == 0:
            with (self.folder / LOG).open("a") as file:
                file.write(line + "\n")

    def warn(self, line: str) -> None:
        """Log a problem that does not stop the run."""
        self.log(f"warning: {line}")

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()
