"""Where a worker stands: rank, device, and its ways to the outside. The local version; Ray's is in `ray_context.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from assay.train.checkpoint import Checkpoints
from assay.train.folder import CHECKPOINTS, SPOOL, STOP, WARNINGS
from assay.train.spool import Spool


class LocalContext:
    """One process, no process group.

    Attributes:
        rank: 0 … world_size - 1; only rank 0 reports and saves.
        threads: CPU threads of this worker, for computing and for loading.
        checkpoints: where the run's state is kept, below its folder.
    """

    def __init__(self, folder: Path, device: torch.device, threads: int, rank: int = 0, world_size: int = 1) -> None:
        self.folder = folder
        self.device = device
        self.threads = threads
        self.rank = rank
        self.world_size = world_size
        self.checkpoints = Checkpoints(folder / CHECKPOINTS, self.warn)
        self._spool: Spool | None = None

    def wrap(self, module: nn.Module) -> nn.Module:
        return module

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor

    def synchronize_buffers(self, module: nn.Module) -> None:
        pass

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics at a step, durably, in order, once."""
        if self.rank:
            return
        if self._spool is None:
            self._spool = Spool(self.folder / SPOOL)
        self._spool.append(step, metrics)

    def flush(self) -> None:
        """Make what was reported survive a power cut; done before each checkpoint, so that no metric is lost."""
        if self._spool is not None:
            self._spool.sync()

    def stop_requested(self) -> bool:
        return (self.folder / STOP).exists()

    def warn(self, line: str) -> None:
        """Tell people something that does not stop the run."""
        if self.rank == 0:
            with (self.folder / WARNINGS).open("a") as file:
                file.write(line + "\n")

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()
