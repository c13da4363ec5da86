"""Sealed lines: whatever a disk does to one, it is noticed, and the others are read."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from assay.sealed import read_lines, sealed, unsealed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), VALUES, min_size=1, max_size=4)


@given(OBJECTS)
def test_a_line_is_read_as_it_was_written(data: dict[str, object]) -> None:
    line = sealed(data)
    assert line.count(b"\n") == 1
    assert unsealed(line) == data


@given(OBJECTS, st.data())
def test_a_flipped_bit_is_noticed(data: dict[str, object], draw: st.DataObject) -> None:
    line = bytearray(sealed(data))
    line[draw.draw(st.integers(0, len(line) - 2))] ^= 1 << draw.draw(st.integers(0, 7))
    assert unsealed(bytes(line)) is None


def test_damage_costs_its_line_alone_and_a_torn_end_is_none(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines = [sealed({"n": n}) for n in range(4)]
    damaged = lines[1].replace(b'"n":1', b'"n":7')
    path.write_bytes(lines[0] + damaged + lines[2] + lines[3][:-3])
    found = list(read_lines(path))
    assert [line.data for line in found] == [{"n": 0}, None, {"n": 2}]
    assert [line.number for line in found] == [1, 2, 3]
    assert list(read_lines(path, found[1].end))[0].data == {"n": 2}
