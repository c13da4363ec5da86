"""Boxes through all that moves them: letterbox, augmentation, assignment, coding, suppression."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from assay.tasks.detection.assign import assign, overlaps
from assay.tasks.detection.augment import Tile, coloured, moved, render, verdict, views
from assay.tasks.detection.compact import _anchors, decode, quality_focal, survivors
from assay.tasks.detection.config import AugmentConfig
from assay.tasks.detection.data import padded
from assay.tasks.detection.letterbox import GREY, letterbox, restore
from assay.train.randomness import Draw

sides = st.integers(8, 90)


def boxes_within(width: float, height: float, count: int, seed: int) -> Tensor:
    """[n, 4], each side at least a pixel."""
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(count, 2, generator=generator), torch.rand(count, 2, generator=generator)
    limit = torch.tensor([width, height])
    low = corner * (limit - 1)
    return torch.cat([low, low + 1 + size * (limit - low - 1)], 1)


# Letterbox


@settings(deadline=None, max_examples=40)
@given(sides, sides, st.sampled_from([(32, 32), (64, 48), (32, 96)]), st.integers(0, 99))
@example(64, 19, (32, 32), 0)
@example(17, 64, (32, 96), 0)
def test_boxes_come_back_from_the_canvas(height: int, width: int, size: tuple[int, int], seed: int) -> None:
    pixels, scale = letterbox(torch.zeros(1, 3, height, width, dtype=torch.uint8), size)
    assert pixels.shape == (1, 3, *size)
    boxes = boxes_within(width, height, 5, seed)
    placed = boxes * scale
    assert (placed[:, 2] <= size[1] + 1e-3).all()
    assert (placed[:, 3] <= size[0] + 1e-3).all()
    rows = torch.cat([placed, torch.ones(5, 2)], 1)[None]
    back = restore(rows, scale, torch.tensor([width, height]))
    torch.testing.assert_close(back[0, :, :4], boxes, rtol=1e-4, atol=1e-3)
    inside = pixels[0, 0] == 0
    # A pixel of the canvas belongs to the image if its middle does: a half is rounded down.
    assert inside.any(0).sum() == (width * scale - 0.5).ceil().clamp_min(1)
    assert inside.any(1).sum() == (height * scale - 0.5).ceil().clamp_min(1)
    assert (pixels[:, :, ~inside] == GREY).all()


def test_the_letterbox_is_antialiased_interpolation() -> None:
    images = torch.randint(0, 256, (2, 3, 60, 80), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels, scale = letterbox(images, (48, 40))
    assert scale == 0.5
    expected = F.interpolate(images.float(), (30, 40), mode="bilinear", antialias=True).round()
    assert (pixels[:, :, :30] - expected).abs().max() <= 1
    assert torch.equal(letterbox(images, (60, 80))[0], images.float())


# Augmentation


def tile(width: int, height: int, **given: object) -> Tile:
    whole = {
        "index": 0,
        "region": (0, 0, width, height),
        "extent": (float(width), float(height)),
        "scale": 1.0,
        "offset": (0.0, 0.0),
        "mirror": (False, False),
    }
    return Tile(**{**whole, **given})  # type: ignore[arg-type]


@settings(deadline=None, max_examples=30)
@given(sides, sides, st.booleans(), st.booleans(), st.integers(0, 99))
def test_mirroring_twice_changes_nothing(width: int, height: int, across: bool, along: bool, seed: int) -> None:
    mirrored = tile(width, height, mirror=(across, along))
    boxes = boxes_within(width, height, 4, seed)
    once, left = moved(boxes, mirrored)
    torch.testing.assert_close(moved(once, mirrored)[0], boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(left, torch.ones(4), rtol=1e-3, atol=1e-3)
    pixels = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed))
    first, second = torch.zeros(3, height, width), torch.zeros(3, height, width)
    render(first, pixels, mirrored)
    render(second, first, mirrored)
    assert (second - pixels).abs().max() < 0.05
    flipped = pixels.flip([axis for axis, on in ((2, across), (1, along)) if on])
    assert (first - flipped).abs().max() < 0.05


@settings(deadline=None, max_examples=40)
@given(sides, sides, st.integers(0, 999), st.floats(1, 3), st.sampled_from(["none", "both"]))
def test_moved_boxes_stay_inside_and_hold_what_they_held(
    width: int, height: int, seed: int, zoom: float, flip: str
) -> None:
    """A white box on black: after any view, what is white lies in the moved box, and fills it."""
    config = AugmentConfig.model_validate({"zoom": zoom, "flip": flip})
    draw = Draw(seed, 0, np.array([0]))
    ((shown,),) = views(np.array([0]), np.array([[width, height]], dtype=float), (height, width), config, draw)
    assert 1 / zoom - 1e-6 <= shown.scale <= zoom + 1e-6
    box = boxes_within(width, height, 1, seed).round()
    x1, y1, x2, y2 = (int(v) for v in box[0])
    pixels = torch.zeros(1, height, width)
    pixels[:, y1:y2, x1:x2] = 255
    canvas = torch.full((1, height, width), GREY)
    render(canvas, pixels, shown)
    placed, left = moved(box, shown)
    assert (placed >= 0).all()
    assert (placed[:, 2] <= width).all()
    assert (placed[:, 3] <= height).all()
    assert 0 <= float(left) <= 1 + 1e-5
    rows, columns = torch.nonzero(canvas[0] > 200, as_tuple=True)
    if len(rows):
        assert columns.min() >= placed[0, 0] - 1
        assert columns.max() <= placed[0, 2] + 1
        assert rows.min() >= placed[0, 1] - 1
        assert rows.max() <= placed[0, 3] + 1
    middle = canvas[0, int(placed[0, [1, 3]].mean()) :, int(placed[0, [0, 2]].mean()) :]
    if (placed[0, 2:] - placed[0, :2]).amin() > 4:
        assert middle[0, 0] > 200


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999))
def test_a_mosaic_fills_the_canvas_once(seed: int) -> None:
    extents = np.array([[64.0, 48.0], [32.0, 64.0], [64.0, 64.0]])
    draw = Draw(seed, 0, np.array([1, 2]))
    covered = torch.zeros(2, 64, 64)
    made = views(np.array([1, 2]), extents, (64, 64), AugmentConfig(mosaic=1.0), draw)
    for canvas, tiles in zip(covered, made, strict=True):
        assert len(tiles) == 4
        assert tiles[0].index in (1, 2)
        for shown in tiles:
            x1, y1, x2, y2 = shown.region
            canvas[y1:y2, x1:x2] += 1
            boxes, _ = moved(boxes_within(*extents[shown.index], 3, seed), shown)
            assert (boxes[:, 0] >= x1).all()
            assert (boxes[:, 2] <= x2).all()
            assert (boxes[:, 1] >= y1).all()
            assert (boxes[:, 3] <= y2).all()
    assert (covered == 1).all()


def test_what_is_cut_off_is_ignored_then_gone() -> None:
    boxes = torch.tensor([[0.0, 0, 20, 20], [-16, 0, 4, 20], [-19, 0, 1, 20], [5, 5, 6, 6]])
    cut, left = moved(boxes, tile(64, 64))
    kept, ignored = verdict(cut, left, torch.zeros(4, dtype=torch.bool))
    assert kept.tolist() == [True, True, False, True]
    assert ignored[kept].tolist() == [False, True, True]


def test_colour_keeps_the_range_and_changes_each_image_its_own_way() -> None:
    images = torch.full((2, 3, 4, 4), 100.0)
    images[:, 0] = 250
    made = coloured(images, 0.5, Draw(0, 0, np.array([3, 4])))
    assert made.min() >= 0
    assert made.max() <= 255
    assert not torch.equal(made[0], made[1])
    assert torch.equal(coloured(images, 0.0, Draw(0, 0, np.array([3, 4]))), images)


# Assignment and coding


def encode(anchors: Tensor, boxes: Tensor) -> Tensor:
    """The offsets that should decode to `boxes`."""
    side = anchors[:, 2:] - anchors[:, :2]
    shift = (boxes[:, 2:] + boxes[:, :2] - anchors[:, 2:] - anchors[:, :2]) / 2 / side
    return torch.cat([shift, ((boxes[:, 2:] - boxes[:, :2]) / side).log()], 1)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 9999))
def test_decoding_undoes_encoding(seed: int) -> None:
    boxes = boxes_within(90, 60, 6, seed)
    anchors = _anchors((96, 96), 16, 5.0)[torch.randint(36, (6,), generator=torch.Generator().manual_seed(seed))]
    torch.testing.assert_close(decode(anchors, encode(anchors, boxes)), boxes, rtol=1e-3, atol=1e-2)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 9999), st.integers(0, 6), st.integers(0, 3))
def test_every_box_is_answered_for(seed: int, count: int, padding: int) -> None:
    parts = [_anchors((64, 96), stride, 5.0) for stride in (8, 16)]
    anchors, levels = torch.cat(parts), [len(part) for part in parts]
    boxes = F.pad(boxes_within(96, 64, count, seed), (0, 0, 0, padding + (count == 0)))[None]
    labels = torch.full((1, boxes.shape[1]), -1)
    labels[:, :count] = 0
    given = assign(anchors, levels, boxes, labels, torch.zeros_like(labels, dtype=torch.bool))
    assert given.counts.all()
    used = given.box[given.box >= 0]
    assert (used < count).all()
    apart = count and (box_iou(boxes[0, :count], boxes[0, :count]) - torch.eye(count)).max() < 0.3
    if count == 1 or (apart and (boxes[0, :count, 2:] - boxes[0, :count, :2]).amin() > 16):
        assert set(used.tolist()) == set(range(count))


def test_ignored_boxes_hide_their_places() -> None:
    anchors = _anchors((64, 64), 8, 5.0)
    boxes = torch.tensor([[[0.0, 0, 32, 32], [32, 32, 64, 64]]])
    labels, ignored = torch.tensor([[0, 0]]), torch.tensor([[False, True]])
    given = assign(anchors, [64], boxes, labels, ignored)
    corner = given.counts.reshape(8, 8)
    assert not corner[4:, 4:].any(), "neither positive nor negative"
    assert corner[:4].all()
    assert corner[:, :4].all()
    assert set(given.box.unique().tolist()) == {-1, 0}


def test_an_image_without_boxes_is_all_background() -> None:
    batch = padded([(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))])
    given = assign(_anchors((32, 32), 8, 5.0), [16], batch["boxes"], batch["labels"], batch["ignored"])
    assert (given.box == -1).all()
    assert given.counts.all()


def test_the_score_that_is_the_quality_costs_nothing_more() -> None:
    logits, target = torch.tensor([0.0, 2.0, -2.0]), torch.tensor([0.5, torch.tensor(2.0).sigmoid(), 0.0])
    loss = quality_focal(logits, target)
    assert torch.equal(loss[:2], torch.zeros(2))
    assert loss[2] == F.binary_cross_entropy_with_logits(logits[2], target[2]) * logits[2].sigmoid() ** 2


# Suppression


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 9999), st.integers(1, 60), st.integers(1, 3))
def test_suppression_is_greedy(seed: int, count: int, classes: int) -> None:
    boxes = boxes_within(60, 60, count, seed)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, generator=generator).sort(descending=True).values
    label = torch.randint(0, classes, (count,), generator=generator)
    alive = survivors(boxes[None], label[None], 0.4)[0]
    expected = torch.zeros(count, dtype=torch.bool)
    expected[batched_nms(boxes, scores, label, 0.4)] = True
    assert torch.equal(alive, expected)
    torch.testing.assert_close(overlaps(boxes[None], boxes[None])[0], box_iou(boxes, boxes))
