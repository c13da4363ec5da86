"""Batches of a split: shuffled by counter, sharded by rank, and resumable at any batch without replaying."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from assay.errors import InputError
from assay.task import Batch, Source
from assay.train.randomness import Draw, key, permutation


class Loader:
    """The training batches of one worker.

    Each epoch is one permutation of all samples, the same on every worker; a batch is `batch_size` consecutive ones,
    of which rank r takes every `world_size`-th. The last batch of an epoch is skipped if it is not full: the
    permutation differs each time, so no sample is skipped for good.

    Raises:
        InputError: there are fewer samples than workers.
    """

    def __init__(self, source: Source, batch_size: int, seed: int, rank: int, world_size: int, threads: int = 0):
        if len(source) < world_size:
            raise InputError(f"{len(source)} training samples for {world_size} workers: use fewer workers")
        self.source = source
        self.batch_size = min(batch_size, len(source) // world_size * world_size)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.threads = threads

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self.source) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""
        order = permutation(key(self.seed, "order", epoch), len(self.source))
        size = self.batch_size
        shards = (order[i * size : (i + 1) * size][self.rank :: self.world_size] for i in range(start, self.steps))
        yield from ahead(self.source, ((shard, Draw(self.seed, epoch, shard)) for shard in shards), self.threads)


def evaluation_batches(source: Source, batch_size: int, rank: int, world_size: int, threads: int) -> Iterator[Batch]:
    """Every sample once, in order, without augmentation; rank r takes every `world_size`-th."""
    mine = np.arange(rank, len(source), world_size)
    shards = (mine[i : i + batch_size] for i in range(0, len(mine), batch_size))
    yield from ahead(source, ((shard, None) for shard in shards), threads)


def ahead(source: Source, work: Iterator[tuple[NDArray[np.int64], Draw | None]], threads: int) -> Iterator[Batch]:
    """Load in order, `threads` batches ahead of the reader; 0 loads on demand, best for samples held in memory."""
    if not threads:
        for indices, draw in work:
            yield source.load(indices, draw)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="loader") as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for indices, draw in work:
                waiting.append(pool.submit(source.load, indices, draw))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
