"""A stop in the middle of an evaluation: it is heard at once, and the next session makes the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from assay.train.context import LocalContext
from assay.train.folder import STOP
from assay.train.loop import Outcome
from tests.support.ranks import Group, ThreadContext
from tests.support.tiny_runs import (
    CPU,
    EPOCHS,
    SOURCES,
    STEPS,
    TOTAL,
    attempt,
    config,
    same,
    spooled,
)
from tests.support.tiny_task import Points

pytestmark = pytest.mark.usefixtures("agreeing_at_every_step")


class Interrupted(Points):
    """Validation samples of which the `load`-th is loaded while a stop is requested."""

    def __init__(self, folder: Path, load: int) -> None:
        super().__init__("val", len(SOURCES["val"]))
        self.folder, self.left = folder, load

    def load(self, indices: Any, draw: Any) -> dict[str, Tensor]:
        self.left -= 1
        if self.left == 0:
            (self.folder / STOP).touch()
        return super().load(indices, draw)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("load", "steps"), [(2, STEPS), (3 * EPOCHS - 1, TOTAL), (3 * EPOCHS, TOTAL)])
def test_an_evaluation_that_a_stop_cuts_off_is_made_by_the_next(
    tmp_path: Path, ranks: int, load: int, steps: int, whole: Any
) -> None:
    """Validation has 3 batches, on two ranks as well; the second of the first epoch, and the last two of all."""

    def tried(sources: Callable[[], Mapping[str, Any]]) -> list[Outcome]:
        group = Group(ranks)
        return group.run(lambda rank: attempt(tmp_path, settings, context=of(group, rank), sources=sources()))

    def of(group: Group, rank: int) -> LocalContext:
        return ThreadContext(tmp_path, group, rank) if ranks > 1 else LocalContext(tmp_path, CPU, 1)

    settings = config(checkpoint_seconds=1000)
    for stopped in tried(lambda: {**SOURCES, "val": Interrupted(tmp_path, load)}):
        assert (stopped.finished, stopped.steps) == (False, steps)
    assert (steps, "val/loss") not in {row[:2] for row in spooled(tmp_path)}
    (tmp_path / STOP).unlink()
    for outcome in tried(lambda: SOURCES):
        assert (outcome.finished, outcome.resumed_from) == (True, steps)
    if ranks == 1:
        assert same(outcome, whole[0])
        assert spooled(tmp_path) == whole[1]
    assert [row[0] for row in spooled(tmp_path) if row[1] == "val/loss"] == [6, 12, 18]
    assert len({row[:2] for row in spooled(tmp_path)}) == len(spooled(tmp_path))
