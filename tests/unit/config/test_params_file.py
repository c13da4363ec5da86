"""Blocks are added to params.yaml and every byte that was there stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from assay.config.params_file import Block, add_block, flow, set_values
from assay.errors import InputError

DATA: dict[str, Any] = {"source": {"kind": "image_folder", "path": "my pics/é: [x] #1", "sha256": "12e45"}, "seed": 0}
BLOCK = Block(DATA, {"seed": "a note"})
SHIPPED = Path(__file__).parents[3] / "params.yaml"


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def is_inserted(old: str, new: str) -> bool:
    """True where `new` is `old` with one piece put in."""
    start = 0
    while start < len(old) and old[start] == new[start]:
        start += 1
    return new.endswith(old[start:])


def test_the_shipped_file_keeps_its_style() -> None:
    text = SHIPPED.read_text()
    new = add_block(text, "datasets", "added", BLOCK)
    assert is_inserted(text, new)
    source = '\n      kind: image_folder\n      path: "my pics/é: [x] #1"\n      sha256: "12e45"\n'
    assert f"\n  added:\n    source:{source}" in new
    plain = add_block(text, "datasets", "added", Block({"source": {"kind": "coco", "path": "pics"}, "seed": 0}))
    assert "\n  added:\n    source: {kind: coco, path: pics}\n    seed: 0\n" in plain
    again = add_block(new, "experiments", "added", BLOCK)
    assert is_inserted(new, again)
    assert "  seed: 0   # a note\n" in again


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "datasets:\n",
        "datasets:",
        "datasets:   # none yet\n  # add yours here\n\nexperiments:\n  a: {b: 1}\n",
        "datasets:\n    a:\n        b: |\n          text\n\n# end\nx: 1\n",
        "datasets:\n  a:\n    b: 1 # one\n    # about b\n  # tail\n\n# section\nexperiments: {}\n",
        "datasets:\r\n  a:\r\n    b: 1 # foo\r\n  # tail\r\n\r\n# sec\r\nq: 1",
        "datasets:\n  a: {b: 1}",
        "datasets:\n  a:\n  - 1\n  - 2 # two\nz: 1\n",
        "datasets:\n  a: 'x\n   y'\n\n  # c\nz: 1",
        "datasets: {a: {b: 1}, c: 2,}\n",
        "datasets: {a: {b: 1}, c: 2} # flow\nz: 1\n",
        "datasets: {\n  # inside\n}\n",
        "experiments:\n  a: 1\n# the end, no newline",
        "datasets:\n\n\n  a: 1\n\n\n\nexperiments:\n  b: 2\n",
        "---\ndatasets:\n a: &x {b: 1}\n c: *x\n",
    ],
)
def test_every_byte_stays(text: str) -> None:
    new = add_block(text, "datasets", "new", BLOCK)
    assert is_inserted(text, new)
    old = load(text) or {}
    assert load(new) == {**old, "datasets": {**(old.get("datasets") or {}), "new": DATA}}
    if "\r\n" in text:
        assert new.count("\n") == new.count("\r\n")


def test_a_comment_at_the_end_of_a_section_stays_with_what_it_follows() -> None:
    text = "datasets:\n  a: 1\n  # about a\n\n# the next section\nexperiments: {}\n"
    new = add_block(text, "datasets", "new", Block({"b": 1}))
    assert new == text.replace("# about a\n", "# about a\n  new:\n    b: 1\n")


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("datasets: {}   # none\nx: 1\n", "   # none\nx: 1\n"),
        ("datasets: ~\nx: 1\n", "x: 1\n"),
        ("datasets: null", ""),
    ],
)
def test_an_empty_section_makes_room(text: str, rest: str) -> None:
    new = add_block(text, "datasets", "new", BLOCK)
    assert load(new)["datasets"] == {"new": DATA}
    assert all(line in new for line in rest.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        "{datasets: {}}",
        "datasets: &x\n  a: 1\nexperiments: *x\n",
        "datasets:\n  a: |+\n    kept blank lines\n\n\nx: 1\n",
        "x: 1\n...\n",
    ],
)
def test_a_form_that_is_beyond_us_is_left_alone(text: str) -> None:
    with pytest.raises(InputError, match="add by hand: new:"):
        add_block(text, "datasets", "new", BLOCK)


def test_a_taken_name_and_a_section_of_another_kind_are_errors() -> None:
    with pytest.raises(InputError, match="must be a mapping of names"):
        add_block("datasets: [1]\n", "datasets", "new", BLOCK)
    with pytest.raises(InputError, match="already exists"):
        add_block("datasets:\n  new: 1\n", "datasets", "new", BLOCK)


def test_values_change_in_place() -> None:
    text = 'datasets:\n  a:\n    source: {path: "x y", kind: k, sha256: "00"}   # why\n    # more\n  b: {c: d}\n'
    new = set_values(text, ("datasets", "a", "source"), {"path": "z", "sha256": "ab12"})
    assert new == text.replace('"x y"', "z").replace('"00"', "ab12")
    block = "datasets:\r\n  a:\r\n    source:\r\n      path: x # one\r\n      sha256: y # two\r\n"
    new = set_values(block, ("datasets", "a", "source"), {"path": "long path", "sha256": "0"})
    assert new == block.replace("path: x", 'path: "long path"').replace("sha256: y", 'sha256: "0"')
    with pytest.raises(InputError, match=r"datasets\.a\.source\.path is missing"):
        set_values("datasets: {a: {source: {}}}", ("datasets", "a", "source"), {"path": "z"})
    with pytest.raises(InputError, match="set by hand"):
        set_values("s: {path: &p x, other: *p}", ("s",), {"path": "z"})


comments = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=12).map(lambda t: f"# {t}")
names = st.text("abcdefgh", min_size=1, max_size=4)
values = st.sampled_from(["1", "x", "{p: 1, q: [1, 2]}", "[]", "'q: #'", '"d"', "3.0e-3"])


@st.composite
def files(draw: st.DrawFn) -> str:
    """A params.yaml as people write them: comments, blank lines and indentations everywhere."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    lines: list[str] = []

    def stray(indent: int) -> None:
        for _ in range(draw(st.integers(0, 2))):
            lines.append(draw(st.one_of(st.just(""), comments.map(lambda text: " " * indent + text))))

    def tail() -> str:
        return draw(st.one_of(st.just(""), comments.map(lambda text: f"  {text}")))

    for section in draw(st.lists(st.sampled_from(["datasets", "experiments", "searches"]), unique=True)):
        stray(0)
        step = draw(st.integers(1, 4))
        lines.append(f"{section}:{tail()}")
        for name in draw(st.lists(names, unique=True, max_size=3)):
            stray(step)
            if draw(st.booleans()):
                lines.append(f"{' ' * step}{name}: {draw(values)}{tail()}")
                continue
            lines.append(f"{' ' * step}{name}:{tail()}")
            for key in draw(st.lists(names, unique=True, max_size=3)):
                stray(draw(st.integers(0, 2 * step)))
                lines.append(f"{' ' * 2 * step}{key}: {draw(values)}{tail()}")
        stray(draw(st.integers(0, step)))
    return newline.join(lines) + draw(st.sampled_from(["", newline]))


@settings(max_examples=300, deadline=None)
@given(files(), st.sampled_from(["datasets", "experiments"]))
def test_comments_and_all_other_bytes_survive(text: str, section: str) -> None:
    new = add_block(text, section, "new-block", BLOCK)
    assert is_inserted(text, new)
    old = load(text) or {}
    assert load(new) == {**old, section: {**(old.get(section) or {}), "new-block": DATA}}


plain = st.recursive(
    st.one_of(st.booleans(), st.none(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
    | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(plain)
@example("._")
def test_flow_style_reads_back(value: Any) -> None:
    assert load(f"a: {flow(value)}\n") == {"a": value}


def test_dvc_can_set_a_parameter_in_what_was_added(tmp_path: Path) -> None:
    """`dvc exp run --set-param` writes the file anew, without quotes, and breaks lines after 80 columns."""
    from dvc.utils.serialize import load_yaml, modify_yaml

    task = {
        "name": "classification", "architecture": "timm:tf_efficientnet_lite0", "weights": "imagenet",
        "augment": {"flip": True}, "labels": ["a: b", "- c"],
    }  # fmt: skip
    path = "/a folder: with words/" + "and more words " * 8
    text = add_block("", "datasets", "pets", Block({"source": {"kind": "image_folder", "path": path}, "seed": 0}))
    text = add_block(text, "experiments", "pets", Block({"task": task, "data": "pets", "optimizer": {"lr": 0.003}}))
    (tmp_path / "params.yaml").write_text(text)
    with modify_yaml(tmp_path / "params.yaml") as data:
        data["experiments"]["pets"]["optimizer"]["lr"] = 0.01
    assert load_yaml(tmp_path / "params.yaml") == {
        "datasets": {"pets": {"source": {"kind": "image_folder", "path": path}, "seed": 0}},
        "experiments": {"pets": {"task": task, "data": "pets", "optimizer": {"lr": 0.01}}},
    }
