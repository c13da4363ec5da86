"""Splits of images that show several things or nothing, and of images that the source has already divided."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.config.card import SplitConfig
from assay.data.annotations import KINDS, class_counts
from assay.data.images import ImageFacts
from assay.data.samples import Box, Sample, Scan
from assay.data.split import SPLITS, Division, split_samples
from assay.errors import InputError

FRACTIONS = (0.7, 0.1, 0.2)


def sample(name: str, labels: tuple[int, ...] = (), split: str | None = None, content: str = "") -> Sample:
    facts = ImageFacts("PNG", "L", 9, 9, 1, (), hashlib.sha256((content or name).encode()).digest(), 1)
    return Sample(name, labels, facts, bytes, split=split)


def divide(
    samples: list[Sample],
    classes: int = 1,
    annotation: str = "labels",
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> Division:
    names = [f"c{i}" for i in range(classes)]
    split = SplitConfig(**dict(zip(SPLITS, fractions, strict=True)))
    return split_samples(Scan(samples, names, [], [], [], "", annotation), split, seed)


def sizes(division: Division) -> list[int]:
    return [len(division.parts[name]) for name in SPLITS]


def test_strata_are_the_rarest_classes_and_the_images_without_any() -> None:
    for attempt in range(20):  # each stratum of three has one image in each split, wherever they lie
        samples = [sample(f"a{attempt}-{i}", (0,)) for i in range(100)]
        samples += [sample(f"ab{attempt}-{i}", (0, 1)) for i in range(3)]
        samples += [sample(f"n{attempt}-{i}") for i in range(3)]
        division = divide(samples, 2)
        rare = [sum(1 in s.labels for s in division.parts[name]) for name in SPLITS]
        empty = [sum(not s.labels for s in division.parts[name]) for name in SPLITS]
        assert (rare, empty) == ([1, 1, 1], [1, 1, 1])
        assert division.warnings == []


def test_the_fractions_are_met_on_average() -> None:
    for fractions in ((0.7, 0.1, 0.2), (0.2, 0.5, 0.3)):
        found = sizes(divide([sample(str(i), (0,)) for i in range(4000)], fractions=fractions))
        deviations = [(4000 * share * (1 - share)) ** 0.5 for share in fractions]
        assert all(
            abs(size - 4000 * share) < 3 * deviation
            for size, share, deviation in zip(found, fractions, deviations, strict=True)
        )


def where(division: Division) -> dict[str, str]:
    return {s.name: name for name, part in division.parts.items() for s in part}


def images(contents: set[int]) -> list[Sample]:
    """Images of three classes, the last of which has few."""
    return [sample(str(i), (min(i % 12, 2) if i % 12 < 3 else i % 2,)) for i in sorted(contents)]


FOLDERS = st.sets(st.integers(0, 10_000), min_size=20, max_size=120)
SHARES = st.tuples(*[st.integers(1, 20)] * 3).map(lambda parts: [part / sum(parts) for part in parts])


@settings(max_examples=40)
@given(FOLDERS, SHARES, st.integers(0, 99))
def test_another_seed_draws_train_and_val_anew_and_leaves_test(
    contents: set[int], fractions: list[float], seed: int
) -> None:
    one, two = (divide(images(contents), 3, fractions=fractions, seed=number) for number in (seed, seed + 1))
    assert one.parts["test"] == two.parts["test"]


def test_another_seed_divides_the_rest_otherwise() -> None:
    samples = images(set(range(200)))
    assert where(divide(samples, 3, seed=0)) != where(divide(samples, 3, seed=1))


@settings(max_examples=40)
@given(FOLDERS, SHARES, st.floats(0.05, 1))
def test_a_larger_test_split_holds_the_smaller_one(contents: set[int], fractions: list[float], kept: float) -> None:
    train, val, test = fractions
    smaller = [train + test * (1 - kept), val, test * kept]
    before, after = divide(images(contents), 3, fractions=smaller), divide(images(contents), 3, fractions=fractions)
    assert {s.name for s in before.parts["test"]} <= {s.name for s in after.parts["test"]}


@settings(max_examples=40)
@given(FOLDERS, st.integers(20_000, 30_000), SHARES)
def test_another_image_moves_no_other_but_by_a_clamp(contents: set[int], new: int, fractions: list[float]) -> None:
    """One class: at most one other image enters or leaves test, and none if test is neither the least nor the most."""
    samples = [sample(str(i), (0,)) for i in contents]
    before = where(divide(samples, 1, "class", fractions))
    after = where(divide([*samples, sample(str(new), (0,))], 1, "class", fractions))
    moved = [name for name in before if "test" in (before[name], after[name]) and before[name] != after[name]]
    counts = [Counter(found.values()) for found in (before, after)]
    clamped = any(count["test"] == 1 or count["train"] + count["val"] == 2 for count in counts)
    assert len(moved) <= clamped
    both = [name for name in before if "test" not in (before[name], after[name]) and before[name] != after[name]]
    assert len(both) <= any(count["val"] == 1 or count["train"] == 1 for count in counts)


@settings(max_examples=40)
@given(FOLDERS, st.randoms())
def test_copies_stay_together_and_order_and_names_do_not_matter(contents: set[int], random: Any) -> None:
    samples = images(contents)
    plain = {s.identity: name for name, part in divide(samples, 3).parts.items() for s in part}
    more = [replace(s, name=f"{random.random()}") for s in [*samples, *samples[::2], *samples[::3]]]
    random.shuffle(more)
    division = divide(more, 3)
    assert all(plain[s.identity] == name for name, part in division.parts.items() for s in part)
    for part in division.parts.values():
        assert part == sorted(part, key=lambda s: (s.identity, s.name))


def test_a_class_with_few_images_is_a_warning_where_images_may_show_several() -> None:
    samples = [sample(f"a{i}", (0,)) for i in range(20)] + [sample("b0", (0, 1)), sample("b1", (1,))]
    division = divide(samples, 3)
    assert division.warnings == ["classes with fewer than 3 distinct images, so not in each split: c1 (2), c2 (0)"]
    assert sum(sizes(division)) == 22
    for annotation in ("class", "style"):
        with pytest.raises(InputError, match="class 'c1' has 1 distinct good images"):
            divide([*samples[:20], sample("b1", (1,))], 2, annotation)


def test_three_images_of_three_classes_are_enough_and_two_are_not() -> None:
    assert sizes(divide([sample(str(i), (i,)) for i in range(3)], 3)) == [1, 1, 1]
    with pytest.raises(InputError, match="no image is left for the val split: 2 distinct"):
        divide([sample(str(i), (i,)) for i in range(2)], 3)


def test_what_the_source_divided_stays_so_and_trainval_is_divided() -> None:
    samples = [sample(f"v{i}", (0,), "trainval") for i in range(80)] + [sample(f"t{i}", (0,), "test") for i in range(7)]
    division = divide(samples)
    train, val, test = sizes(division)
    assert (train + val, test) == (80, 7)
    assert 4 <= val <= 16
    assert {s.name[0] for s in division.parts["test"]} == {"t"}
    fixed = divide([sample(f"{name}{i}", (0,), name) for name in SPLITS for i in range(2)])
    assert [sorted(s.name for s in fixed.parts[name]) for name in SPLITS] == [[f"{n}0", f"{n}1"] for n in SPLITS]
    with pytest.raises(InputError, match="no image is left for the test split"):
        divide([sample(f"t{i}", (0,), "trainval") for i in range(9)])


def test_a_content_in_two_fixed_splits_stays_in_the_test_set() -> None:
    others = [sample(f"o{i}", (0,)) for i in range(10)]
    same: list[dict[str, Any]] = [{"split": "train"}, {"split": "test"}, {"split": None}, {"split": "trainval"}]
    division = divide([*others, *(sample(f"s{i}", (0,), content="x", **more) for i, more in enumerate(same))])
    assert [item["file"] for item in division.rejected] == ["s0", "s3"]
    assert division.rejected[0]["reason"].startswith("the same image as s1, which is in test")
    assert {"s1", "s2"} <= {s.name for s in division.parts["test"]}
    assert sum(sizes(division)) == 12


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30), st.sets(st.integers(0, 3)), st.sampled_from([None, "train", "val", "test", "trainval"])
        ),
        min_size=3,
    )
)
def test_nothing_is_lost_and_no_content_is_in_two_splits(entries: list[tuple[int, set[int], str | None]]) -> None:
    samples = [
        sample(f"{i:03d}", tuple(sorted(labels)), split, str(content))
        for i, (content, labels, split) in enumerate(entries)
    ]
    try:
        division = divide(samples, 4)
    except InputError as error:
        assert "no image is left for the" in str(error)  # noqa: PT017
        return
    names = Counter(s.name for part in division.parts.values() for s in part)
    names.update(item["file"] for item in division.rejected)
    assert names == Counter(s.name for s in samples)
    where = {(s.identity, name) for name, part in division.parts.items() for s in part}
    assert len(where) == len({image for image, _ in where})
    for name, part in division.parts.items():
        assert all(s.split in (None, name) or (s.split == "trainval" and name != "test") for s in part)


def test_counts_are_of_images_or_of_boxes_that_count() -> None:
    boxes = (Box(0, 0, 1, 1, 0), Box(1, 1, 2, 2, 0), Box(1, 1, 2, 2, 1, ignored=True))
    shown = replace(sample("a", (0,)), boxes=boxes)
    assert class_counts("boxes", [shown, shown], ["x", "y"]) == {"x": 4, "y": 0}
    assert class_counts("labels", [sample("a", (0, 1)), sample("b", (1,))], ["x", "y"]) == {"x": 1, "y": 2}
    assert class_counts("style", [sample("a", (1,))], ["content", "style"]) == {"content": 0, "style": 1}


BAD_ROWS = [
    ("class", {"label": 2}, "label 2 of 2"),
    ("style", {"label": None}, "label None of 2"),
    ("labels", {"labels": [1, 0]}, "not sorted"),
    ("labels", {"labels": [0, 0]}, "not sorted"),
    ("labels", {"labels": [0, 5]}, "label 5 of 2"),
    ("boxes", {"boxes": [0, 0, 5], "labels": [0], "ignored": [False]}, "do not match"),
    ("boxes", {"boxes": [0, 0, 5, 5], "labels": [0], "ignored": []}, "do not match"),
    ("boxes", {"boxes": [0, 0, 0, 5], "labels": [0], "ignored": [False]}, "does not lie in 9 x 9"),
    ("boxes", {"boxes": [0, 0, 5, 9.5], "labels": [0], "ignored": [False]}, "does not lie in 9 x 9"),
    ("boxes", {"boxes": [0, 0, 5, float("nan")], "labels": [0], "ignored": [False]}, "does not lie in 9 x 9"),
    ("boxes", {"boxes": [0, 0, 9, 9], "labels": [-1], "ignored": [False]}, "label -1 of 2"),
]


@pytest.mark.parametrize(("annotation", "row", "problem"), BAD_ROWS)
def test_a_row_that_does_not_fit_its_annotation_is_named(annotation: str, row: dict[str, Any], problem: str) -> None:
    assert problem in (KINDS[annotation].problem({"width": 9, "height": 9, **row}, 2) or "")


def test_rows_that_fit() -> None:
    boxed = replace(sample("a", (0,)), boxes=(Box(0, 0, 9, 9, 1), Box(1, 1, 2, 2, 0, ignored=True)))
    for annotation, good in {"class": boxed, "labels": sample("b", (0, 1)), "boxes": boxed, "style": boxed}.items():
        row = {"width": 9, "height": 9, **KINDS[annotation].columns(good)}
        assert KINDS[annotation].problem(row, 2) is None
