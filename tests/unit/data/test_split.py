"""Splits of images that show several things or nothing, and of images that the source has already divided."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.config.card import SplitConfig
from assay.data.annotations import KINDS, class_counts
from assay.data.images import ImageFacts
from assay.data.samples import Box, Sample, Scan
from assay.data.split import SPLITS, Division, split_samples
from assay.errors import InputError

FACTS = ImageFacts("PNG", "L", 9, 9, 1, ())


def sample(name: str, labels: tuple[int, ...] = (), split: str | None = None, content: str = "") -> Sample:
    return Sample(name, labels, content or name, FACTS, lambda: b"", split=split)


def divide(samples: list[Sample], classes: int = 1, annotation: str = "labels") -> Division:
    names = [f"c{i}" for i in range(classes)]
    return split_samples(Scan(samples, names, [], [], [], "", annotation), SplitConfig(), 0)


def sizes(division: Division) -> list[int]:
    return [len(division.parts[name]) for name in SPLITS]


def test_strata_are_the_rarest_classes_and_the_images_without_any() -> None:
    samples = [sample(f"a{i}", (0,)) for i in range(100)]
    samples += [sample(f"ab{i}", (0, 1)) for i in range(20)]
    samples += [sample(f"n{i}") for i in range(30)]
    division = divide(samples, 2)
    assert sizes(division) == [105, 15, 30]
    rare = [sum(1 in s.labels for s in division.parts[name]) for name in SPLITS]
    empty = [sum(not s.labels for s in division.parts[name]) for name in SPLITS]
    assert (rare, empty) == ([14, 2, 4], [21, 3, 6])
    assert division.warnings == []


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
    assert sizes(division) == [70, 10, 7]
    assert {s.name[0] for s in division.parts["test"]} == {"t"}
    fixed = divide([sample(f"{name}{i}", (0,), name) for name in SPLITS for i in range(2)])
    assert [[s.name for s in fixed.parts[name]] for name in SPLITS] == [[f"{n}0", f"{n}1"] for n in SPLITS]
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
    where = {(s.sha256, name) for name, part in division.parts.items() for s in part}
    assert len(where) == len({sha for sha, _ in where})
    for name, part in division.parts.items():
        assert all(s.split in (None, name) or (s.split == "trainval" and name != "test") for s in part)


def test_counts_are_of_images_or_of_boxes_that_count() -> None:
    boxes = (Box(0, 0, 1, 1, 0), Box(1, 1, 2, 2, 0), Box(1, 1, 2, 2, 1, ignored=True))
    shown = Sample("a", (0,), "a", FACTS, lambda: b"", boxes)
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
    boxed = Sample("a", (0,), "a", FACTS, lambda: b"", (Box(0, 0, 9, 9, 1), Box(1, 1, 2, 2, 0, ignored=True)))
    for annotation, good in {"class": boxed, "labels": sample("b", (0, 1)), "boxes": boxed, "style": boxed}.items():
        row = {"width": 9, "height": 9, **KINDS[annotation].columns(good)}
        assert KINDS[annotation].problem(row, 2) is None
