"""The context of a Ray Train worker: Ray knows its rank and has formed the process group."""

from __future__ import annotations

from pathlib import Path

import ray.train
import ray.train.torch

from assay.train.distributed_context import DistributedContext


def rank() -> int:
    return int(ray.train.get_context().get_world_rank())


class RayContext(DistributedContext):
    def __init__(self, folder: Path, threads: int, compiled: bool) -> None:
        here = ray.train.get_context()
        rank, world_size = here.get_world_rank(), here.get_world_size()
        super().__init__(folder, ray.train.torch.get_device(), threads, rank, world_size, compiled)
