"""The typed form of `schedules:` in `params.yaml`: which flow runs when. Free of Prefect, whose rules it keeps."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_validator, model_validator

from assay.config.schema import Frozen, Name
from assay.errors import known

FLOWS = ("train-and-promote", "retrain", "nightly-search", "promote")
TARGETS = {"train-and-promote": "experiment", "retrain": "experiment", "nightly-search": "search", "promote": "model"}
"""The key that names the target of a flow."""
ONLY = {"minutes": "nightly-search", "approval": "promote"}
"""Keys that only one flow has."""
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
INTERVAL = re.compile(r"([1-9][0-9]{0,5}) (second|minute|hour|day|week)s?")
DOUBTFUL = re.compile(r"(^|,)((\w+)-\3(/|,|$)|\w+/)")
"""Not read alike by all programs: a range from a value to itself (0-0), a step from a single value (5/15)."""
FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")


class ScheduleConfig(Frozen):
    """One block of `schedules:`: a flow, its target, and either a cron line or an interval."""

    flow: Literal["train-and-promote", "retrain", "nightly-search", "promote"]
    experiment: Name | None = Field(None, description="for train-and-promote and retrain")
    search: Name | None = Field(None, description="for nightly-search")
    model: Name | None = Field(None, description="for promote: a model has the name of its experiment")
    minutes: float | None = Field(None, gt=0, description="for nightly-search: maximum working time of each run")
    approval: bool = Field(False, description="for promote: wait until a person approves")
    cron: str | None = Field(None, description="minute, hour, day of the month, month, day of the week")
    interval: str | None = Field(None, description="such as 15 minutes")
    timezone: str = Field("UTC", description="of the cron line, such as Europe/Berlin")

    @field_validator("flow", mode="before")
    @classmethod
    def _known_flow(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in FLOWS:
            raise ValueError(known("flow", value, list(FLOWS)))
        return value

    @field_validator("cron")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            check_cron(value)
        return value

    @field_validator("interval")
    @classmethod
    def _interval(cls, value: str | None) -> str | None:
        if value is not None and not INTERVAL.fullmatch(value):
            raise ValueError(f"write a whole number and a unit, such as 15 minutes, 6 hours or 1 day, not {value!r}")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            import difflib

            near = difflib.get_close_matches(value, available_timezones(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "such as Europe/Berlin or UTC"
            raise ValueError(f"unknown time zone {value!r}; {hint}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ScheduleConfig:
        if (self.cron is None) == (self.interval is None):
            raise ValueError(f"give either cron or interval, not {'both' if self.cron else 'neither'}")
        wanted = TARGETS[self.flow]
        for key in dict.fromkeys(TARGETS.values()):
            if (getattr(self, key) is not None) != (key == wanted):
                raise ValueError(f"{self.flow} needs {wanted}" if key == wanted else f"{self.flow} takes no {key}")
        for key, flow in ONLY.items():
            if self.flow != flow and key in self.model_fields_set:
                raise ValueError(f"{self.flow} takes no {key}")
        return self

    @property
    def target(self) -> str:
        name: str = getattr(self, TARGETS[self.flow])
        return name

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments of the flow."""
        given: dict[str, Any] = {TARGETS[self.flow]: self.target}
        if self.minutes is not None:
            given["minutes"] = self.minutes
        if self.flow == "promote":
            given["approval"] = self.approval
        return given

    @property
    def every(self) -> timedelta | None:
        """The interval; None for a cron line."""
        if self.interval is None:
            return None
        match = INTERVAL.fullmatch(self.interval)
        assert match is not None
        return timedelta(seconds=int(match[1]) * UNITS[match[2]])


def check_cron(line: str) -> None:
    """Refuse a cron line, naming the wrong field. A line that passes means the same to Prefect."""
    parts = line.split()
    if len(parts) != len(FIELDS):
        raise ValueError(f"a cron line has five fields ({', '.join(FIELDS)}), not {len(parts)}: {line!r}")
    from cronsim import CronSim, CronSimError

    for index, (part, field) in enumerate(zip(parts, FIELDS, strict=True)):
        probe = ["*"] * len(FIELDS)
        probe[index] = part
        plain = re.fullmatch(r"[0-9A-Za-z*/,-]+", part) and not re.search(r"(?i)l|^r$|^h$|w$", _named(part))
        try:
            if not plain or DOUBTFUL.search(part):
                raise CronSimError
            CronSim(" ".join(probe), datetime.now(ZoneInfo("UTC")))
        except CronSimError:
            raise ValueError(f"cron: cannot read {part!r} as {field}, in {line!r}") from None
    if "*" not in (parts[2], parts[4]) and "*/" in parts[2] + parts[4]:
        raise ValueError(f"cron: a step (*/) in one field of days cannot be combined with the other, in {line!r}")
    try:
        next(CronSim(line, datetime.now(ZoneInfo("UTC"))))
    except (CronSimError, StopIteration):
        raise ValueError(f"cron: no day matches {line!r}") from None


def _named(part: str) -> str:
    """The field without the names of months and days."""
    return re.sub(r"(?i)jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat", "", part)
