"""Every sample once, on one worker, in an order that only the seed and the epoch decide; resumable anywhere."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from assay.errors import InputError
from assay.train.loader import Loader, evaluation_batches
from assay.train.randomness import Draw


class Numbers:
    """A source whose batches are (indices, their random numbers)."""

    def __init__(self, length: int, broken: int | None = None) -> None:
        self.length = length
        self.broken = broken

    def __len__(self) -> int:
        return self.length

    def load(self, indices: np.ndarray[Any, Any], draw: Draw | None) -> tuple[list[int], list[float] | None]:
        if self.broken in indices:
            raise OSError(f"sample {self.broken} cannot be read")
        return indices.tolist(), None if draw is None else draw.uniform("a")[:, 0].tolist()


def batches(loader: Loader, epoch: int, start: int = 0) -> list[Any]:
    return list(loader.epoch(epoch, start))


def loaders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


SHAPES = st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4))


@given(SHAPES, st.integers(0, 1000), st.integers(0, 3))
def test_workers_part_each_batch_of_one_worker(shape: tuple[int, int, int], seed: int, epoch: int) -> None:
    length, share, world = shape
    assume(length >= world)
    alone = Loader(Numbers(length), share * world, seed, 0, 1)
    ranks = [Loader(Numbers(length), share * world, seed, rank, world) for rank in range(world)]
    if alone.batch_size % world:  # a batch of all samples is cut to what the workers can share
        alone.batch_size = ranks[0].batch_size
    assert {loader.steps for loader in ranks} == {alone.steps}
    assert alone.steps >= 1
    seen: list[int] = []
    for whole, *parts in zip(batches(alone, epoch), *(batches(loader, epoch) for loader in ranks), strict=True):
        assert len({len(indices) for indices, _ in parts}) == 1
        pairs = sorted(pair for indices, values in parts for pair in zip(indices, values, strict=True))
        assert pairs == sorted(zip(*whole, strict=True))
        seen += [index for index, _ in pairs]
    assert len(seen) == len(set(seen)) == alone.steps * alone.batch_size
    assert set(seen) <= set(range(length))
    assert length - len(seen) < alone.batch_size


def test_more_workers_than_samples_are_refused() -> None:
    with pytest.raises(InputError, match="1 training samples for 2 workers: use fewer workers"):
        Loader(Numbers(1), 8, 0, 0, 2)


@given(st.integers(1, 40), st.integers(1, 10), st.integers(0, 5), st.data())
def test_an_epoch_goes_on_at_any_batch(length: int, batch: int, epoch: int, data: st.DataObject) -> None:
    loader = Loader(Numbers(length), batch, 1, 0, 1)
    start = data.draw(st.integers(0, loader.steps))
    assert batches(loader, epoch, start) == batches(loader, epoch)[start:]


def test_epochs_and_seeds_differ_and_leave_no_sample_out_for_good() -> None:
    loader = Loader(Numbers(10), 4, 1, 0, 1)
    assert batches(loader, 0) != batches(loader, 1)
    assert batches(loader, 0) != batches(Loader(Numbers(10), 4, 2, 0, 1), 0)
    assert {i for epoch in range(8) for indices, _ in batches(loader, epoch) for i in indices} == set(range(10))


@pytest.mark.parametrize("threads", [1, 3, 50])
def test_threads_change_nothing_and_end(threads: int) -> None:
    for epoch in range(2):
        expected = batches(Loader(Numbers(50), 4, 1, 0, 1), epoch, 2)
        assert batches(Loader(Numbers(50), 4, 1, 0, 1, threads), epoch, 2) == expected
    assert list(evaluation_batches(Numbers(50), 4, 0, 1, threads)) == list(evaluation_batches(Numbers(50), 4, 0, 1, 0))
    assert loaders() == []


@given(SHAPES)
def test_an_evaluation_sees_every_sample_once_in_order(shape: tuple[int, int, int]) -> None:
    length, batch, world = shape
    ranks = [list(evaluation_batches(Numbers(length), batch, rank, world, 0)) for rank in range(world)]
    assert all(draw is None and 1 <= len(indices) <= batch for rank in ranks for indices, draw in rank)
    seen = [[i for indices, _ in rank for i in indices] for rank in ranks]
    assert all(indices == sorted(indices) for indices in seen)
    assert sorted(i for indices in seen for i in indices) == list(range(length))


@pytest.mark.parametrize("threads", [0, 2])
def test_a_sample_that_cannot_be_loaded_stops_the_epoch_and_leaves_no_thread(threads: int) -> None:
    with pytest.raises(OSError, match="sample 7 cannot be read"):
        batches(Loader(Numbers(50, broken=7), 4, 1, 0, 1, threads), 0)
    assert loaders() == []


def test_an_epoch_that_is_left_leaves_no_thread() -> None:
    running = Loader(Numbers(50), 4, 1, 0, 1, 2).epoch(0)
    next(running)
    assert loaders()
    running.close()
    assert loaders() == []
