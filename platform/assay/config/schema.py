"""The machinery of every config: frozen models, closed to unknown keys, whose errors name their path. Free of torch.

All errors are reported at once, one per line: the path, what is wrong and what is allowed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from assay.errors import InputError, known

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Model = TypeVar("Model", bound=BaseModel)
METRIC = r"^(train|val|test)/[a-z0-9_]+$"
MetricName = Annotated[str, Field(pattern=METRIC)]


class Frozen(BaseModel):
    """The base of every config: immutable, closed to unknown keys, never infinite or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise ValueError(f"must be a number, not {str(value).lower()}")
        return value


class NestedError(ValueError):
    """The errors of a block that another model checked; `lines`: (path inside the block, what is wrong)."""

    def __init__(self, lines: list[tuple[str, str]]):
        super().__init__("; ".join(f"{path}: {text}" for path, text in lines))
        self.lines = lines


def typed(value: Any, key: str, load: Callable[[str], type[BaseModel]]) -> Any:
    """Validate `value` by the model that its own `key` names; its errors keep their paths."""
    if isinstance(value, BaseModel):
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get(key), str):
        raise ValueError(f"must be a mapping with the key {key!r} (a name)")
    try:
        model = load(value[key])
    except InputError as error:
        raise NestedError([(key, str(error))]) from None
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        raise NestedError(explain(error, model)) from None


def resolved(config: BaseModel) -> dict[str, Any]:
    """Plain data of a config with all defaults: what is recorded and hashed."""
    data: dict[str, Any] = config.model_dump(mode="json")
    return data


def digest(data: Any) -> str:
    """sha256 of plain data in canonical JSON, as 64 hexadecimal digits."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def validate(model: type[Model], data: Any, origin: str) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [f"{origin}: {path}: {text}" for path, text in explain(error, model)]
        raise InputError("\n".join(lines)) from None


def explain(error: ValidationError, model: type[BaseModel]) -> list[tuple[str, str]]:
    """(path, what is wrong and what is allowed) for each error, in the order of the models."""
    lines: list[tuple[str, str]] = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"] if part != "[key]")
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, NestedError):
            lines += [(".".join(filter(None, (path, inner))), text) for inner, text in cause.lines]
        elif item["type"] == "extra_forbidden":
            allowed = list(_model_at(model, item["loc"][:-1]).model_fields)
            lines.append((path, known("key", str(item["loc"][-1]), allowed)))
        elif cause is not None:
            lines.append((path or "(whole)", str(cause)))
        elif item["type"] == "missing":
            lines.append((path, "missing"))
        else:
            given = "" if isinstance(item["input"], dict) else f", not {item['input']!r}"
            lines.append((path, f"{item['msg'][0].lower()}{item['msg'][1:]}{given}"))
    return lines


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that holds the key at `location`, found by walking the annotations."""
    annotation: Any = model
    for part in location:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = annotation.model_fields[str(part)].annotation
        else:
            annotation = get_args(annotation)[-1]
    return cast("type[BaseModel]", annotation)
