"""Adds blocks to `params.yaml` without changing a byte of what its owner wrote.

The file is never dumped: positions come from the YAML nodes, text is inserted there, and the result is parsed to prove
that it means what was intended and nothing else. If that fails, the file stays unchanged.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from assay.errors import InputError


class Block(NamedTuple):
    """A mapping to add: `data` is its content; `notes` are comments to write after some of its keys."""

    data: Mapping[str, Any]
    notes: Mapping[str, str] = {}


def add_block(text: str, section: str, name: str, block: Block) -> str:
    """The text of `params.yaml` with `section.name` added at the end of the section, which may be missing.

    Raises:
        InputError: the name is taken, or a block cannot be added safely to the file as it is written.
    """
    old = _load(text)
    there = old.get(section) or {}
    if not isinstance(there, dict):
        raise InputError(f"params.yaml: {section}: must be a mapping of names to blocks")
    if name in there:
        raise InputError(f"params.yaml: {section}.{name} already exists")
    wanted = {**copy.deepcopy(old), section: {**there, name: dict(block.data)}}
    new = _insert(text, section, name, block)
    if new is None or not _means(new, wanted):
        inner = flow({name: block.data})[1:-1]
        raise InputError(f"params.yaml: cannot add a block to {section!r} as it is written; add by hand: {inner}")
    return new


def set_values(text: str, path: tuple[str, ...], values: Mapping[str, str]) -> str:
    """The text with the existing strings `path.<key>` replaced; comments and everything else stay.

    Raises:
        InputError: the mapping or key is missing, or cannot be changed safely as it is written.
    """
    wanted = copy.deepcopy(_load(text))
    node: Any = _compose(text)
    inner: Any = wanted
    where = ".".join(path)
    for key in path:
        node, inner = _child(node, key), inner.get(key) if isinstance(inner, dict) else None
    edits = []
    for key, value in values.items():
        child = _child(node, key)
        if child is None or not isinstance(inner, dict):
            raise InputError(f"params.yaml: {where}.{key} is missing")
        inner[key] = value
        edits.append((child.start_mark.index, child.end_mark.index, scalar(value)))
    new = text
    for start, end, replacement in sorted(edits, reverse=True):
        new = new[:start] + replacement + new[end:]
    if not _means(new, wanted):
        keys = ", ".join(f"{key}: {scalar(value)}" for key, value in values.items())
        raise InputError(f"params.yaml: cannot change {where} as it is written; set by hand: {keys}")
    return new


def _insert(text: str, section: str, name: str, block: Block) -> str | None:
    """The new text; None if the form of the file is not supported."""
    newline = "\r\n" if "\r\n" in text else "\n"
    root = _compose(text)
    if root is not None and (not _is_mapping(root) or root.flow_style):
        return None
    if root is None or _child(root, section) is None:
        margin = root.start_mark.column if root is not None else 0
        lines = [f"{' ' * margin}{section}:", *_lines(name, block, margin + 2, 2)]
        gap = "" if not text or text.endswith("\n") else newline
        blank = newline if root is not None else ""
        return f"{text}{gap}{blank}{newline.join(lines)}{newline}"
    margin, node = root.start_mark.column, _child(root, section)
    key = next(key for key, _ in root.value if key.value == section)
    start, end = node.start_mark.index, node.end_mark.index
    if _is_mapping(node) and node.value and not node.flow_style:
        column = node.value[0][0].start_mark.column
        lines = _lines(name, block, column, max(column - margin, 1))
        return _put_lines(text, _last_index(node), lines, margin, newline)
    lines = _lines(name, block, margin + 2, 2)
    if _is_mapping(node) and text[start + 1 : end - 1].strip():
        return _into_flow(text, node, name, block)
    if start == end:  # nothing after the colon
        return _put_lines(text, key.end_mark.index, lines, margin, newline)
    if _is_mapping(node) or node.tag.endswith(":null"):
        before = text[:start].rstrip(" ") if not text[end:].lstrip(" ").startswith("#") else text[:start]
        return _put_lines(before + text[end:], len(before), lines, margin, newline)
    return None


def _put_lines(text: str, index: int, lines: list[str], margin: int, newline: str) -> str:
    """`lines` after the line that holds `index`, and after comments below it that are indented deeper than `margin`."""
    end = _line_end(text, index)
    probe = end
    while probe < len(text):
        start = text.find("\n", probe) + 1
        if start == 0:
            break
        probe = _line_end(text, start)
        line = text[start:probe]
        bare = line.lstrip(" ")
        if bare.startswith("#") and len(line) - len(bare) > margin:
            end = probe
        elif line.strip():
            break
    return text[:end] + "".join(newline + line for line in lines) + text[end:]


def _line_end(text: str, index: int) -> int:
    """Where the line that holds `index` ends, before its line break."""
    end = text.find("\n", index)
    end = len(text) if end < 0 else end
    return end - 1 if end > index and text[end - 1] == "\r" else end


def _into_flow(text: str, node: Any, name: str, block: Block) -> str:
    """Append to `{a: 1}`: before its closing brace, in its own style."""
    close = node.end_mark.index - 1
    before = text[:close].rstrip(" ")
    comma = ("" if before.endswith("\n") else " ") if not node.value or before.endswith(",") else ", "
    return f"{before}{comma}{flow({name: block.data})[1:-1]}{text[close:]}"


def _last_index(node: Any) -> int:
    """The position after the last character of a node, without the comments and blanks that YAML adds to it."""
    while _is_mapping(node) and node.value and not node.flow_style:
        key, value = node.value[-1]
        node = value if value.end_mark.index > value.start_mark.index else key
    if type(node).__name__ == "SequenceNode" and not node.flow_style and node.value:
        return _last_index(node.value[-1])
    raw = node.start_mark.buffer[node.start_mark.index : node.end_mark.index] if node.start_mark.buffer else ""
    return int(node.end_mark.index) - (len(raw) - len(raw.rstrip()) if raw else 0)


def _lines(name: str, block: Block, indent: int, step: int) -> list[str]:
    """The block as lines: one key per line, deeper values in flow style, like the shipped file.

    Values with strings that need quotes are written in block style, for `dvc exp run --set-param`: DVC writes the whole
    file anew without quotes, and breaks its lines where it cannot read them again.
    """
    pad, inner = " " * indent, " " * (indent + step)
    lines = [f"{pad}{scalar(name)}:"]
    for key, value in block.data.items():
        note = f"   # {block.notes[key]}" if key in block.notes else ""
        if isinstance(value, Mapping) and '"' in flow(value):
            first, *rest = _lines(key, Block(value), indent + step, step)
            lines += [first + note, *rest]
        else:
            lines.append(f"{inner}{scalar(key)}: {flow(value)}{note}")
    return lines


def flow(value: Any) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A scalar that reads back as itself, also inside a flow mapping; without quotes if possible."""
    if isinstance(value, float):
        short = f"{value:.1e}"
        return short.replace("e-0", "e-") if 0 < abs(value) < 0.01 and float(short) == value else repr(value)
    if not isinstance(value, str):
        return json.dumps(value)
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        plain = re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*", value) and YAML(typ="safe").load(value) == value
    except (YAMLError, ValueError):  # ValueError: such as ._, which ruamel takes for a number
        plain = False
    return value if plain else json.dumps(value, ensure_ascii=False)


def _load(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:
        raise InputError(f"params.yaml: not valid YAML: {' '.join(str(error).split())}") from None
    if data is not None and not isinstance(data, dict):
        raise InputError("params.yaml: must be a mapping")
    return data or {}


def _compose(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="rt", pure=True).compose(text)


def _means(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return _load(text) == wanted
    except InputError:
        return False


def _is_mapping(node: Any) -> bool:
    return type(node).__name__ == "MappingNode"


def _child(node: Any, key: str) -> Any:
    """The value node of a key; None if the node is not a mapping or lacks the key."""
    if node is None or not _is_mapping(node):
        return None
    return next((value for name, value in node.value if name.value == key), None)
