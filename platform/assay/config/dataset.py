"""One block of `datasets:`."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializeAsAny, field_validator

from assay.config.card import SplitConfig
from assay.config.plugin import SourceConfig, load_source
from assay.config.schema import Frozen, typed


class DatasetConfig(Frozen):
    """One block of `datasets:`. The `seed` divides train from val; the test split does not depend on it."""

    source: SerializeAsAny[SourceConfig]
    split: SplitConfig = SplitConfig()
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("source", mode="before")
    @classmethod
    def _typed_source(cls, value: Any) -> Any:
        return typed(value, "kind", load_source)
