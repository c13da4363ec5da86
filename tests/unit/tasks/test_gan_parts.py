"""The parts of the task `gan` by themselves: losses, penalties, DiffAugment, the measures of quality, the networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assay.tasks.gan.augment import NUMBERS, augmented, coloured, cut, translated
from assay.tasks.gan.config import AugmentConfig, Config
from assay.tasks.gan.data import squared
from assay.tasks.gan.features import Judge, Pixels
from assay.tasks.gan.losses import judged_fake, judged_real, relativistic, slopes
from assay.tasks.gan.metrics import diversity, frechet, neighbourhood
from assay.tasks.gan.model import Cut, Discriminator, Generator, as_bytes
from assay.tasks.gan.task import between

FULL = AugmentConfig(colour=1, translation=0.25, cutout=0.5)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Losses


def test_losses_are_those_computed_by_hand() -> None:
    real, fake = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    expected = (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(5))) / 2
    assert relativistic(real, fake).item() == pytest.approx(expected)
    backwards = (math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(-5))) / 2
    assert relativistic(fake, real).item() == pytest.approx(backwards)
    assert judged_real(real).item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2)
    assert judged_fake(fake).item() == pytest.approx((math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(3))) / 2)


def test_slopes_are_those_of_finite_differences() -> None:
    config = Config(image_size=8, width=4)
    torch.manual_seed(0)
    judge = Discriminator(config, 1, 3).double()
    nn.init.normal_(judge.classes.weight)  # type: ignore[union-attr]
    images, labels = random(2, 1, 8, 8).double(), torch.tensor([2, 0])
    found = slopes(judge(images.requires_grad_(), labels), images)
    step, expected = 1e-6, torch.zeros(2, dtype=torch.float64)
    for place in range(64):
        moved = torch.zeros(1, 64, dtype=torch.float64)
        moved[0, place] = step
        moved = moved.reshape(1, 1, 8, 8)
        with torch.no_grad():
            expected += ((judge(images + moved, labels) - judge(images - moved, labels)) / (2 * step)) ** 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)


def test_a_penalty_reaches_the_weights_as_finite_differences_say() -> None:
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Linear(3, 5), nn.Softplus(), nn.Linear(5, 1)).double()
    points = random(4, 3).double()

    def penalty() -> torch.Tensor:
        inputs = points.clone().requires_grad_()
        return slopes(judge(inputs)[:, 0], inputs).mean()

    penalty().backward()
    weight, step = judge[0].weight, 1e-6
    assert weight.grad is not None
    for place in ((0, 0), (3, 2)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * step
            values.append(penalty().item())
            with torch.no_grad():
                weight[place] -= sign * step
        assert weight.grad[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


# DiffAugment


def test_no_strength_changes_nothing() -> None:
    images = random(3, 3, 8, 8)
    off = AugmentConfig(colour=0, translation=0, cutout=0)
    assert torch.equal(augmented(images, torch.rand(3, NUMBERS), off), images)


def test_shifts_are_by_whole_pixels_and_uncover_grey() -> None:
    image = torch.arange(1.0, 65).reshape(1, 1, 8, 8)
    numbers = torch.tensor([[0.99, 0.0]])  # rows down by 2, columns left by 2
    moved = translated(image, numbers, 0.25)
    expected = torch.zeros(1, 1, 8, 8)
    expected[..., 2:, :-2] = image[..., :-2, 2:]
    assert torch.equal(moved, expected)
    assert torch.equal(translated(image, torch.tensor([[0.5, 0.5]]), 0.25), image)


def test_each_shift_is_as_frequent() -> None:
    image = torch.zeros(600, 1, 8, 8)
    image[:, :, 4, 4] = 1
    numbers = torch.linspace(0, 1 - 1e-6, 600)[:, None].expand(-1, 2)
    rows = translated(image, numbers, 0.125).amax(3).argmax(2).flatten()
    assert torch.bincount(rows).tolist() == [0, 0, 0, 200, 200, 200]


@given(st.floats(0, 0.999), st.floats(0, 0.999))
def test_a_hole_is_a_square_that_may_leave_the_image(down: float, right: float) -> None:
    left = cut(torch.ones(1, 1, 8, 8), torch.tensor([[down, right]]), 0.5)[0, 0]
    holes = left == 0
    rows, columns = holes.any(1).sum().item(), holes.any(0).sum().item()
    assert 2 <= rows <= 4
    assert 2 <= columns <= 4
    assert holes.sum().item() == rows * columns


def test_colour_moves_brightness_saturation_and_contrast() -> None:
    image = random(1, 3, 4, 4)
    brighter = coloured(image, torch.tensor([[1.0, 0.5, 0.5]]), 1)
    torch.testing.assert_close(brighter, image + 0.5)
    grey = coloured(image, torch.tensor([[0.5, 0.0, 0.5]]), 1)
    torch.testing.assert_close(grey, image.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    flat = coloured(image, torch.tensor([[0.5, 0.5, 0.0]]), 1)
    torch.testing.assert_close(flat - flat.mean(), 0.5 * (image - image.mean()))


@given(st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_equal_numbers_change_equal_images_equally_in_any_batch(seed: int) -> None:
    numbers = torch.rand(4, NUMBERS, generator=torch.Generator().manual_seed(seed))
    image = random(1, 3, 16, 16, seed=seed).expand(4, -1, -1, -1)
    together = augmented(image, numbers, FULL)
    assert torch.equal(together, augmented(image, numbers, FULL))
    for row in range(4):
        torch.testing.assert_close(augmented(image[:1], numbers[row : row + 1], FULL)[0], together[row])


def test_gradients_pass_through_what_is_left() -> None:
    image = random(2, 1, 8, 8).requires_grad_()
    augmented(image, torch.full((2, NUMBERS), 0.9), FULL).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


# Quality


def test_the_frechet_distance_is_the_closed_form() -> None:
    rows = np.random.default_rng(0).normal(size=(4000, 3))
    rows = (rows - rows.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False)).T)  # exactly standard
    one, other = np.array([1.0, 2.0, 0.5]), np.array([0.5, 1.0, 3.0])
    shift = np.array([1.0, 0.0, -2.0])
    found = frechet(rows * one, rows * other + shift)
    assert found == pytest.approx((shift**2).sum() + ((one - other) ** 2).sum(), rel=1e-9)
    assert frechet(rows, rows) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_is_scipys_where_there_are_fewer_rows_than_columns() -> None:
    from scipy.linalg import sqrtm

    draw = np.random.default_rng(1)
    real, fake = draw.normal(size=(7, 12)), 2 * draw.normal(size=(30, 12)) + 1
    one, other = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = np.trace(np.real(sqrtm(one @ other)))
    expected = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(one) + np.trace(other) - 2 * root
    assert frechet(real, fake) == pytest.approx(expected, rel=1e-4)
    assert frechet(fake, real) == pytest.approx(frechet(real, fake))


def test_precision_recall_density_and_coverage_of_a_line() -> None:
    """Real at 0 … 9, balls of radius 2 (and more at the ends) with k = 2: on a line the k-th neighbour is plain."""
    real = np.arange(10.0)[:, None]
    radius = np.array([2, 1, 1, 1, 1, 1, 1, 1, 1, 2])  # the second nearest
    fake = np.array([[0.0], [0.1], [0.2], [20.0]])
    found = neighbourhood(real, fake, k=2)
    inside = abs(real - fake.T) <= radius[:, None]
    assert found["precision"] == 0.75
    assert found["density"] == pytest.approx(inside.sum() / 4 / 2)
    assert found["coverage"] == pytest.approx(inside.any(1).mean())
    reach = np.array([0.2, 0.1, 0.2, 19.9])
    assert found["recall"] == pytest.approx((abs(real - fake.T) <= reach).any(1).mean())


def test_one_set_against_itself_and_against_a_far_one() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 4))
    same, far = neighbourhood(rows, rows), neighbourhood(rows, rows + 100)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    assert set(far.values()) == {0}


def test_dropped_modes_cost_recall_and_coverage_not_precision() -> None:
    draw = np.random.default_rng(0)
    real = np.concatenate([draw.normal(size=(100, 2)), draw.normal(size=(100, 2)) + 50])
    found = neighbourhood(real, draw.normal(size=(200, 2)))
    assert found["precision"] > 0.9
    assert found["recall"] <= 0.5
    assert found["coverage"] <= 0.5


def test_diversity_is_measured_within_classes() -> None:
    draw = np.random.default_rng(0)
    real, labels = draw.normal(size=(400, 3)), np.repeat([0, 1], 200)
    real[labels == 1] += 100
    assert diversity(real, real / 2, labels, labels) == pytest.approx(0.5)
    stuck = np.where(labels[:, None] == 1, 100.0, 0.0) * np.ones(3)
    assert diversity(real, stuck, labels, labels) == 0


def test_the_judge_names_the_nearest() -> None:
    images = torch.zeros(20, 1, 32, 32, dtype=torch.uint8)
    images[10:, :, :16] = 200
    labels = np.repeat([3, 5], 10)
    judge = Judge(images, labels)
    assert judge(images[[0, 19]] + 9).tolist() == [3, 5]


# Networks


@given(
    st.sampled_from([8, 16, 32, 64]),
    st.sampled_from([1, 3]),
    st.sampled_from([0, 4]),
    st.sampled_from(["r3gan", "dcgan"]),
)
@settings(max_examples=16, deadline=None)
def test_networks_take_every_size(size: int, channels: int, classes: int, loss: str) -> None:
    config = Config.model_validate({"image_size": size, "width": 4, "latent": 6, "loss": loss})
    images = Generator(config, channels, classes)(torch.randn(3, 6 + classes))
    assert images.shape == (3, channels, size, size)
    assert images.abs().max() <= 1
    scores = Discriminator(config, channels, classes)(images, torch.tensor([0, 1, 2]) % max(1, classes))
    assert scores.shape == (3,)


def test_only_the_old_networks_normalize() -> None:
    for loss, expected in (("r3gan", False), ("dcgan", True)):
        config = Config.model_validate({"image_size": 32, "width": 4, "loss": loss})
        for network in (Generator(config, 1, 0), Discriminator(config, 1, 0)):
            assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == expected


def test_modern_images_reach_pure_black_and_white_and_learn_in_between() -> None:
    logits = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], requires_grad=True)
    pixels = Cut()(logits)
    assert pixels.tolist() == [-1, pytest.approx(-0.6932, abs=1e-4), 0, pytest.approx(0.6932, abs=1e-4), 1]
    pixels.sum().backward()
    assert (logits.grad > 0).tolist() == [False, True, True, True, False]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("task", "weight"),
    [({"image_size": 8}, 0.1), ({"image_size": 32}, 1.6), ({"penalty": 3}, 3), ({"loss": "dcgan", "penalty": 3}, 0)],
)
def test_the_penalty_follows_from_the_size_of_images(task: dict[str, Any], weight: float) -> None:
    assert Config.model_validate(task).slope_weight == pytest.approx(weight)


def test_residual_blocks_keep_the_size_of_signals_however_deep() -> None:
    torch.manual_seed(0)
    sizes = []
    for depth in (1, 8):
        network = Discriminator(Config(image_size=16, width=16, depth=depth), 1, 0)
        sizes.append(network.features(random(64, 1, 16, 16)).std().item())
    assert 0.5 < sizes[0] / sizes[1] < 2


def test_a_judged_class_changes_the_score_and_only_its_own() -> None:
    config = Config(image_size=8, width=4)
    judge = Discriminator(config, 1, 3)
    images = random(3, 1, 8, 8)
    plain = judge(images, torch.tensor([0, 1, 2]))
    with torch.no_grad():
        judge.classes.weight[1] += 1  # type: ignore[union-attr]
    assert (judge(images, torch.tensor([0, 1, 2])) != plain).tolist() == [False, True, False]


# Pixels


def test_pixels_go_to_bytes_and_back() -> None:
    values = torch.arange(256)
    assert torch.equal(as_bytes(values / 127.5 - 1), values.to(torch.uint8))
    assert as_bytes(torch.tensor([-1.2, 1.2])).tolist() == [0, 255]
    assert Pixels()(torch.full((2, 1, 2, 2), 255, dtype=torch.uint8)).tolist() == [[1.0] * 4] * 2


@given(st.integers(4, 40), st.integers(4, 40))
@settings(deadline=None)
def test_pictures_are_cut_to_their_middle_square(height: int, width: int) -> None:
    image = torch.zeros(1, height, width, dtype=torch.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image[:, top : top + side, left : left + side] = 100
    assert (squared(image, 8) == 100).all()


def test_ways_between_latents_keep_their_length() -> None:
    start, end = random(2, 1, 400), random(2, 1, 400, seed=1)
    way = between(start, end, 5)
    assert torch.equal(way[:, 0], start[:, 0])
    torch.testing.assert_close(way[:, -1], end[:, 0], rtol=1e-4, atol=1e-5)
    assert (way.std(2) - 1).abs().max() < 0.15
