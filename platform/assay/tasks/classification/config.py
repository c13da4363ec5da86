"""What a classification lets the user choose."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from assay.config import Frozen, Headline, TaskConfig


class AugmentConfig(Frozen):
    """Random changes of each training image, drawn anew each epoch. Zero or false switches one off."""

    shift: float = Field(0.0, ge=0, le=0.5, description="largest shift, as a fraction of the side")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation in degrees")
    scale: float = Field(0.0, ge=0, lt=1, description="largest change of size; 0.1 is 0.9 to 1.1")
    flip: bool = Field(False, description="mirror left and right in half of the cases")


class Config(TaskConfig):
    """One image, one class."""

    name: Literal["classification"] = "classification"
    architecture: Literal["small_cnn"] = "small_cnn"
    image_size: int = Field(32, ge=4, le=1024, description="pixels a side, after resizing")
    width: int = Field(32, ge=4, le=512, description="channels of the first stage")
    dropout: float = Field(0.1, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    augment: AugmentConfig = AugmentConfig()

    @property
    def headline(self) -> Headline:
        return Headline("accuracy")
