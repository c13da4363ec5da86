"""Each change of an image does what it says, by its own numbers, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.tasks.classification.augment import ERASED, augmented, mixed
from assay.tasks.classification.config import AugmentConfig, Config
from assay.train.randomness import Draw


def draw(indices: list[int] | range, seed: int = 1, epoch: int = 0) -> Draw:
    return Draw(seed, epoch, np.array(indices, dtype=np.int64))


class Fixed(Draw):
    """Each of the five numbers (turn, grow, right, down, mirror) as the test says, -1 to 1."""

    def __init__(self, count: int, **values: float) -> None:
        super().__init__(0, 0, np.arange(count))
        names = ("turn", "grow", "right", "down", "mirror")
        object.__setattr__(self, "row", [(values.get(name, 0.0) + 1) / 2 for name in names])

    def uniform(self, purpose: str, count: int = 1) -> np.ndarray[Any, Any]:
        assert count == len(self.row)  # type: ignore[attr-defined]
        return np.tile(np.array(self.row), (len(self.indices), 1))  # type: ignore[attr-defined]


def picture(size: int = 8, channels: int = 1) -> Tensor:
    """[1, C, S, S], every pixel different."""
    return torch.arange(channels * size * size).reshape(1, channels, size, size).to(torch.uint8)


@pytest.mark.parametrize("config", [AugmentConfig(), AugmentConfig(shift=0.1, rotate=30, scale=0.3)])
def test_no_change_is_no_change(config: AugmentConfig) -> None:
    """Zero in the config, or zeros drawn."""
    drawn = draw([0]) if config == AugmentConfig() else Fixed(1)
    torch.testing.assert_close(augmented(picture(), config, drawn), picture().float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "drawn", "expected"),
    [
        (AugmentConfig(flip=True), {"mirror": -1}, lambda p: p.flip(-1)),
        (AugmentConfig(flip=True), {"mirror": 0.99}, lambda p: p),
        (AugmentConfig(), {"mirror": -1, "turn": 1, "right": 1, "down": 1, "grow": 1}, lambda p: p),
        (AugmentConfig(rotate=90), {"turn": 1}, lambda p: p.rot90(1, (-2, -1))),
        (AugmentConfig(rotate=90), {"turn": -1}, lambda p: p.rot90(-1, (-2, -1))),
        (AugmentConfig(rotate=180), {"turn": 1}, lambda p: p.flip(-1, -2)),
        (AugmentConfig(shift=0.25), {"right": 1}, lambda p: torch.cat([p[..., 2:], p[..., -1:], p[..., -1:]], -1)),
        (AugmentConfig(shift=0.5), {"down": -0.5}, lambda p: torch.cat([p[..., :1, :]] * 2 + [p[..., :-2, :]], -2)),
    ],
)
def test_each_change_does_what_it_says(
    config: AugmentConfig, drawn: dict[str, float], expected: Callable[..., Any]
) -> None:
    made = augmented(picture(), config, Fixed(1, **drawn))
    torch.testing.assert_close(made, expected(picture().float()), rtol=0, atol=0.01)


@pytest.mark.parametrize(("grow", "side"), [(1, 12), (-1, 4)])
def test_growing_grows(grow: float, side: int) -> None:
    square = torch.zeros(1, 1, 16, 16)
    square[..., 4:12, 4:12] = 255
    made = augmented(square, AugmentConfig(scale=0.5), Fixed(1, grow=grow))
    assert (made > 127).sum().item() == side**2


def test_half_of_the_pictures_are_mirrored() -> None:
    made = augmented(picture().expand(400, -1, -1, -1), AugmentConfig(flip=True), draw(range(400)))
    flipped = (made[:, 0, 0, 0] - 7).abs() < 0.01
    straight = (made[:, 0, 0, 0] - 0).abs() < 0.01
    assert (flipped | straight).all()
    assert 150 < flipped.sum() < 250


EVERYTHING = AugmentConfig(shift=0.2, rotate=20, scale=0.2, flip=True, colour=0.3, erase=0.5)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_a_picture_is_changed_the_same_in_any_batch(indices: list[int], epoch: int) -> None:
    pictures = torch.randint(0, 256, (31, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    together = augmented(pictures[indices], EVERYTHING, draw(indices, epoch=epoch))
    assert 0 <= together.min() <= together.max() <= 255
    for row, index in enumerate(indices):
        alone = augmented(pictures[[index]], EVERYTHING, draw([index], epoch=epoch))
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-3)


def test_epochs_and_samples_are_changed_differently() -> None:
    same = picture().expand(2, -1, -1, -1)
    one, other = augmented(same, EVERYTHING, draw([0, 1]))
    assert not torch.equal(one, other)
    assert not torch.equal(one, augmented(same, EVERYTHING, draw([0, 1], epoch=1))[0])


def test_colours_change_within_their_bounds() -> None:
    grey = torch.full((200, 3, 4, 4), 100, dtype=torch.uint8)
    made = augmented(grey, AugmentConfig(colour=0.2), draw(range(200)))
    level = made.mean((1, 2, 3))
    assert 79 < level.min() < 85 < 115 < level.max() < 121
    assert (made.std(1) < 1e-3).all()  # grey stays grey


def test_saturation_changes_colour_images_alone() -> None:
    red = torch.zeros(50, 3, 4, 4)
    red[:, 0] = 200
    made = augmented(red, AugmentConfig(colour=0.5), draw(range(50)))
    assert (made[:, 1].mean((1, 2)) > 1).any()
    assert augmented(red[:, :1], AugmentConfig(colour=0.5), draw(range(50))).shape == (50, 1, 4, 4)


def test_a_share_of_the_images_loses_one_rectangle() -> None:
    noise = torch.randint(0, 256, (300, 3, 20, 20), generator=torch.Generator().manual_seed(0)).float()
    made = augmented(noise, AugmentConfig(erase=0.4), draw(range(300)))
    gone = (made != noise).any(1)
    share = gone.float().mean((1, 2))
    hit = share > 0
    assert 0.3 < hit.float().mean() < 0.5
    assert ERASED[0] * 0.4 < share[hit].min() < share[hit].max() < ERASED[1] * 1.2
    for mask in gone[hit]:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == rows * columns


def pair(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Black images of class 0 and white partners of class 1."""
    targets = torch.eye(2)
    return (
        torch.zeros(count, 1, 16, 16), targets[[0] * count], torch.full((count, 1, 16, 16), 255.0), targets[[1] * count]
    )  # fmt: skip


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_targets_are_mixed_as_the_pixels_are(settings: dict[str, float]) -> None:
    images, targets = mixed(*pair(200), Config(**settings), draw(range(200)))  # type: ignore[arg-type]
    torch.testing.assert_close(images.mean((1, 2, 3)) / 255, targets[:, 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(targets.sum(1), torch.ones(200))
    whole = ((images == 0) | (images == 255)).flatten(1).all(1).float().mean()
    expected = {1: (0.0, 0.1) if "mixup" in settings else (1.0, 1.0), 2: (0.4, 0.65)}[len(settings)]
    assert expected[0] <= whole <= expected[1]


def test_mixing_follows_the_sample_alone() -> None:
    together, _ = mixed(*pair(9), Config(mixup=1, cutmix=1), draw(range(9)))
    alone, _ = mixed(*pair(1), Config(mixup=1, cutmix=1), draw([5]))
    assert torch.equal(together[5], alone[0])
