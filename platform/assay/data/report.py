"""What was left out of a dataset version or converted for it, line by line: kept beside the card, which all read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.config.card import Card, Listed
from assay.data.version import fix
from assay.errors import InputError
from assay.files import load_json, write_atomic

REPORT = "report.jsonl"
SHOWN = 20
"""Lines of each kind that the card holds too."""

Lines = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Report:
    """`rejected` is [{file, reason}], `converted` is [{file, change}]."""

    rejected: Lines
    converted: Lines

    def write(self, folder: Path) -> None:
        """Write the file, unless there is nothing to say."""
        text = "".join(f"{json.dumps(line)}\n" for line in (*self.rejected, *self.converted))
        if text:
            write_atomic(folder / REPORT, text.encode())


def listed(lines: Lines) -> Listed:
    return Listed(count=len(lines), first=list(lines[:SHOWN]))


def read_report(folder: Path, card: Card) -> Report:
    """The report of a version. Raises `InputError` if it is missing or damaged."""
    counts = (card.rejected.count, card.converted.count)
    if not any(counts):
        return Report([], [])
    try:
        lines = [dict(load_json(line)) for line in (folder / REPORT).read_bytes().splitlines()]
        report = Report([x for x in lines if "reason" in x], [x for x in lines if "change" in x])
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"dataset {card.name!r}: {REPORT} cannot be read ({error}): {fix(card.name)}") from None
    if (len(report.rejected), len(report.converted)) != counts or len(lines) != sum(counts):
        raise InputError(f"dataset {card.name!r}: {REPORT} is damaged: {fix(card.name)}")
    return report


def summary(folder: Path, card: Card, version: str | None) -> dict[str, Any]:
    """The contents of a version for the `data` commands, with all lines of its report; `version` is its hash."""
    report = read_report(folder, card)
    return {**card.summary(version), "rejected": report.rejected, "converted": report.converted}
