"""Which weights a run keeps: the best by the headline metric, and by the loss where that is chance."""

from __future__ import annotations

import pytest

from assay.config.plugin import Headline
from assay.train.loop import Position, _keep


@pytest.mark.parametrize(
    ("share", "kept"),
    [
        (True, [True, True, False, True, False, True]),
        (False, [True, True, False, False, False, False]),
    ],
)
def test_within_one_sample_of_the_best_the_loss_decides(share: bool, kept: list[bool]) -> None:
    """As on 176 validation images, of which an early epoch had all right by chance."""
    rule, position = Headline("accuracy", share=share), Position()
    found = []
    for right, loss in ((170, 0.2), (176, 0.05), (175, 0.06), (175, 0.03), (174, 0.01), (175, 0.03)):
        metrics = {"val/accuracy": right / 176, "val/loss": loss}
        found.append(_keep(rule, metrics, position, 176))
        if found[-1]:
            position.best_metrics = metrics
    assert found == kept
    assert position.best_value == 1.0
