"""What a detection lets the user choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from assay.config.plugin import Headline, TaskConfig
from assay.config.schema import Frozen
from assay.networks.names import WeightsName, check_architecture, weight_files
from assay.networks.shape import CONVNET, NetworkConfig, StageConfig, shapes

if TYPE_CHECKING:
    from assay.config.card import Card

DETECTORS = (
    "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn",
    "torchvision:fasterrcnn_mobilenet_v3_large_fpn",
    "torchvision:fasterrcnn_resnet50_fpn",
    "torchvision:fasterrcnn_resnet50_fpn_v2",
    "torchvision:fcos_resnet50_fpn",
    "torchvision:retinanet_resnet50_fpn",
    "torchvision:retinanet_resnet50_fpn_v2",
    "torchvision:ssd300_vgg16",
    "torchvision:ssdlite320_mobilenet_v3_large",
)
"""Whole detectors of torchvision. Every other architecture is a backbone of Assay's own detector."""

STAGES = tuple(StageConfig(depth=2, width=width, block="residual") for width in (24, 48, 96, 96))
LITE = "timm:tf_efficientnet_lite0"
Side = Annotated[int, Field(ge=32, le=2048)]


def _architecture(value: str) -> str:
    return value if value == CONVNET else check_architecture(value)


class AugmentConfig(Frozen):
    """Random changes of each training image, drawn again each epoch; the boxes move along."""

    zoom: float = Field(1.0, ge=1, le=4, description="largest change of size; 1.5 is 1/1.5 to 1.5; 1 changes none")
    flip: Literal["none", "horizontal", "both"] = Field("none", description="mirror in half of the cases, each way")
    mosaic: float = Field(0.0, ge=0, le=1, description="how often four images share the canvas")
    colour: float = Field(0.0, ge=0, lt=1, description="largest change of brightness, contrast and saturation")


class Config(TaskConfig):
    """One image, any number of boxes, each with its class."""

    name: Literal["detection"] = "detection"
    architecture: Annotated[str, AfterValidator(_architecture)] = Field(
        LITE, description="a backbone by name, convnet, or a whole detector of torchvision"
    )
    weights: WeightsName = Field("imagenet", description="of the backbone; a file: of the whole detector, if it is one")
    image_size: Side | tuple[Side, Side] = Field(320, description="pixels a side, or [height, width]")
    strides: tuple[Literal[4, 8, 16, 32], ...] = Field((8, 16, 32), min_length=1, description="the maps looked at")
    network: NetworkConfig = Field(NetworkConfig(stages=STAGES), description="the shape of convnet")
    width: int = Field(96, ge=16, le=512, multiple_of=16, description="channels of neck and head")
    depth: int = Field(2, ge=1, le=6, description="convolutions of the head before its last")
    anchor: float = Field(5.0, gt=0, description="side of the box that a place starts from, in strides")
    backbone_lr: float = Field(0.3, ge=0, le=1, description="factor on optimizer.lr; 0 freezes the backbone")
    ema: float = Field(0.995, ge=0, lt=1, description="decay of the averaged weights; 0: no averaging")
    detections: int = Field(100, ge=1, le=1000, description="most boxes of an image")
    overlap: float = Field(0.6, gt=0, le=1, description="IoU above which the weaker of two boxes of a class is dropped")
    threshold: float = Field(0.3, ge=0, lt=1, description="lowest score of a box that is reported and drawn")
    augment: AugmentConfig = AugmentConfig()

    @field_validator("strides")
    @classmethod
    def _rising(cls, strides: tuple[int, ...]) -> tuple[int, ...]:
        if any(low * 2 != high for low, high in zip(strides, strides[1:], strict=False)):
            raise ValueError(f"must double from one to the next, such as [8, 16, 32], not {list(strides)}")
        return strides

    @model_validator(mode="after")
    def _weights_have_a_network(self) -> Config:
        if self.architecture == CONVNET and self.weights != "none":
            raise ValueError(f"{CONVNET} has no pretrained weights: set weights: none, or architecture: {LITE}")
        return self

    @property
    def headline(self) -> Headline:
        return Headline("map")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Besides `map_small`, `map_medium` and `map_large`, each reported if the split has such boxes."""
        return ("map", "map_50", "map_75", "mar_100")

    @classmethod
    def networks(cls) -> dict[str, dict[str, Any]]:
        """Neck and head, on the experiment's own backbone with ImageNet weights or on a `convnet` from a random start.

        Sides of images must divide by 32.
        """
        random_start = {"task.weights": "none"}
        return {
            "weights": {"choice": ["imagenet", "none"]},
            "architecture": {"choice": [CONVNET], "when": random_start},
            "backbone_lr": {"choice": [1.0], "when": random_start},
            "strides": {"choice": [[8, 16], [8, 16, 32]]},
            "width": {"choice": [16, 32, 48, 64, 96, 128]},
            "depth": {"integer": [1, 3]},
            **shapes(random_start),
        }

    @property
    def files(self) -> tuple[str, ...]:
        return weight_files(self.weights)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that the network sees."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def whole(self) -> bool:
        """Whether `architecture` names a whole detector, not a backbone."""
        return self.architecture in DETECTORS

    @classmethod
    def starter(cls, card: Card) -> dict[str, Any] | None:
        """The compact detector at the size of the images, for some minutes on two cores."""
        if card.annotation != "boxes":
            return None
        longest = max(card.median_size)
        size = [max(64, round(side * min(1.0, 320 / longest) / 32) * 32) for side in card.median_size]
        batch = 16 if card.samples["train"] >= 128 else 8
        seen = 5.0e8 / (size[0] * size[1])  # images in about ten minutes on two cores
        return {
            "task": {
                "name": "detection",
                "image_size": size[0] if size[0] == size[1] else size,
                "augment": {"zoom": 1.5, "flip": "horizontal", "mosaic": 0.5, "colour": 0.3},
            },
            "optimizer": {"name": "adamw", "lr": 1.0e-3, "weight_decay": 0.05, "schedule": "cosine", "warmup": 0.05},
            "train": {
                "epochs": max(10, min(200, round(seen / max(card.samples["train"], 1)))),
                "batch_size": batch,
                "clip": 10.0,
            },
            "gate": {"min": {"test/map_50": 0.3}},
        }
