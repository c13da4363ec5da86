"""Lines of JSON that carry their checksum, so that a damaged one is noticed and all others stay of use.

A file of them is only ever appended to. A last line without its end was torn by a kill and is no damage.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEAL = b',"crc32":"'
_TAIL = len(SEAL) + 8 + len(b'"}\n')


@dataclass(frozen=True)
class Line:
    """One line. `data` is None if it is damaged; `end` is the offset behind it."""

    number: int
    data: Mapping[str, Any] | None
    end: int


def sealed(data: Mapping[str, Any]) -> bytes:
    """A non-empty object as one line, its checksum last."""
    body = json.dumps(data, separators=(",", ":")).encode()[:-1]
    return b'%b%b%08x"}\n' % (body, SEAL, zlib.crc32(body))


def unsealed(line: bytes) -> Mapping[str, Any] | None:
    """The object of a line; None if the line is not exactly what `sealed` wrote."""
    body, rest = line[:-_TAIL], line[-_TAIL:]
    if rest != b'%b%08x"}\n' % (SEAL, zlib.crc32(body)):
        return None
    try:
        data = json.loads(body + b"}")
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def read_lines(path: Path, offset: int = 0) -> Iterator[Line]:
    """The lines of a file from `offset` on, damaged ones among them, up to a torn last one. `offset` starts a line."""
    with path.open("rb") as file:
        file.seek(offset)
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield Line(number, unsealed(line), offset)
