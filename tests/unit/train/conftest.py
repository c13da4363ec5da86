"""What tests of stops and kills share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from assay.train import checkpoint, loop, pulse
from assay.train.loop import Outcome
from tests.support.tiny_runs import attempt, config, spooled


@pytest.fixture(scope="module")
def agreeing_at_every_step() -> Iterator[None]:
    """The workers agree on a stop at every step, and record every third."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pulse, "SECONDS", 0.0)
        patch.setattr(loop, "RECORDS_PER_EPOCH", 2)
        patch.setattr(checkpoint, "sync", lambda path: None)  # no power is cut here, and it costs most of the time
        yield


@pytest.fixture(scope="module")
def whole(
    agreeing_at_every_step: None,  # noqa: ARG001 - it is to be recorded alike
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Outcome, list[tuple[int, str, float]]]:
    """A run that nobody disturbs, and its points."""
    folder = tmp_path_factory.mktemp("whole")
    return attempt(folder, config(checkpoint_seconds=1000)), spooled(folder)
