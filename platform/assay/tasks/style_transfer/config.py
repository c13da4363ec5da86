"""What a style transfer lets the user choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from assay.config.plugin import Headline, TaskConfig
from assay.config.schema import Frozen
from assay.networks.names import ArchitectureName, WeightsName, weight_files

if TYPE_CHECKING:
    from assay.config.card import Card

STYLE_LAYERS = ("bn1", "blocks.1.1.bn1", "blocks.2.1.bn1")
"""EfficientNet-Lite0: the stem and widened maps in front of depthwise convolutions; one each at stride 2, 4 and 8."""


class PerceptualConfig(Frozen):
    """The frozen network whose activations capture what a picture shows (content) and how it is painted (style)."""

    architecture: ArchitectureName = "timm:tf_efficientnet_lite0"
    weights: WeightsName = "imagenet"
    style_layers: tuple[str, ...] = Field(STYLE_LAYERS, min_length=1, description="names of modules")
    content_layers: tuple[str, ...] = Field(("blocks.2.1.bn1",), min_length=1, description="names of modules")


class Config(TaskConfig):
    """The content of a photograph in the style of a painting or texture."""

    name: Literal["style_transfer"] = "style_transfer"
    method: Literal["optimize", "network"] = Field(
        "network",
        description="optimize: learn the pictures themselves; network: learn to paint any photograph",
    )
    image_size: int = Field(256, ge=16, le=2048, description="pixels a side of styles and of whole pictures")
    style_weight: float = Field(50.0, ge=0)
    content_weight: float = Field(5.0, ge=0)
    variation_weight: float = Field(20.0, ge=0, description="weight of total variation: larger is smoother")
    perceptual: PerceptualConfig = PerceptualConfig()

    crop_size: int = Field(128, ge=16, le=2048, description="network: pixels a side of the training crops")
    crops_per_image: int = Field(32, ge=1, description="network: crops of each photograph in an epoch")
    zoom: float = Field(0.2, ge=0, le=4, description="network: crops show photographs enlarged up to 1 + zoom")
    width: int = Field(16, ge=4, le=256, description="network: a quarter of the channels of its blocks")
    blocks: int = Field(3, ge=1, le=16, description="network: residual blocks")

    style: str | None = Field(None, description="a style's name; none: every style")
    content: str | None = Field(None, description="optimize: a photograph's name; none: the first for validation")
    start: Literal["content", "noise"] = Field("content", description="optimize: what the pictures start from")
    steps: int = Field(50, ge=1, description="optimize: steps in an epoch")

    @property
    def headline(self) -> Headline:
        return Headline("total_loss", maximize=False)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("total_loss", "style_loss", "content_loss", "variation", "style_ratio")

    @property
    def files(self) -> tuple[str, ...]:
        return weight_files(self.perceptual.weights)

    @classmethod
    def starter(cls, card: Card) -> dict[str, Any] | None:
        if card.annotation != "style":
            return None
        return {
            "task": {"name": "style_transfer", "image_size": 128, "crop_size": 128, "width": 8},
            "optimizer": {"name": "adam", "lr": 5.0e-3, "schedule": "cosine"},
            "train": {"epochs": 4, "batch_size": 4, "workers": 0},
        }

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.method == "network":
            if self.content is not None:
                raise ValueError("content: method network paints every photograph: leave it out")
            if self.crop_size > self.image_size:
                raise ValueError(f"crop_size: {self.crop_size} is larger than image_size {self.image_size}: lower it")
        if self.style_weight == 0 and self.content_weight == 0:
            raise ValueError("style_weight and content_weight are both 0: nothing would be learnt")
        return self
