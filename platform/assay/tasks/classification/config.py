"""What a classification lets the user choose."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from assay.config.plugin import Headline, TaskConfig
from assay.config.schema import Frozen
from assay.networks.names import WeightsName, check_architecture, weight_files
from assay.networks.shape import CONVNET, NetworkConfig, shapes

if TYPE_CHECKING:
    from assay.config.card import Card

SMALL = "small_cnn"
OWN = (SMALL, CONVNET)
LITE = "timm:tf_efficientnet_lite0"
PHOTOGRAPH = 32  # pixels of the shorter side from which colour images count as photographs


def _architecture(value: str) -> str:
    return value if value in OWN else check_architecture(value)


class AugmentConfig(Frozen):
    """Random changes of each training image, drawn again each epoch. Zero or false switches one off."""

    shift: float = Field(0.0, ge=0, le=0.5, description="largest shift, as a fraction of the side")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation in degrees")
    scale: float = Field(0.0, ge=0, lt=1, description="largest change of size; 0.1 is 0.9 to 1.1")
    flip: bool = Field(False, description="mirror left and right in half of the cases")
    colour: float = Field(0.0, ge=0, lt=1, description="largest change of brightness, contrast, saturation and hue")
    erase: float = Field(0.0, ge=0, le=1, description="share of the images that lose a rectangle")


class TransferConfig(Frozen):
    """How a pretrained network is fine-tuned. A stage is a block of the network, counted from the head down."""

    freeze: bool = Field(False, description="learn the head alone")
    unfreeze: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), description="fractions of the training at which the next stage below the head thaws"
    )
    decay: float = Field(1.0, gt=0, le=1, description="learning rate of a stage relative to the one above it")

    @model_validator(mode="after")
    def _thaws_what_is_frozen(self) -> TransferConfig:
        if self.unfreeze and not self.freeze:
            raise ValueError("unfreeze has no effect without freeze: true")
        if list(self.unfreeze) != sorted(self.unfreeze):
            raise ValueError(f"unfreeze must rise, such as {sorted(self.unfreeze)}")
        return self


class Config(TaskConfig):
    """One image, one class; or, with `multi_label`, one image and all classes that it shows."""

    name: Literal["classification"] = "classification"
    architecture: Annotated[str, AfterValidator(_architecture)] = SMALL
    weights: WeightsName = "none"
    multi_label: bool = Field(False, description="an image may show any number of classes")
    image_size: int = Field(32, ge=4, le=1024, description="pixels a side, after resizing")
    width: int = Field(32, ge=4, le=512, description="channels of the first stage of small_cnn")
    network: NetworkConfig = Field(NetworkConfig(), description="the shape of convnet")
    pool: Literal["place", "max", "average"] = Field(
        "place",
        description="small_cnn and convnet: keep where things are (centred things), or take the most of each feature, "
        "or its mean",
    )
    dropout: float = Field(0.1, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    augment: AugmentConfig = AugmentConfig()
    mixup: float = Field(0.0, ge=0, description="both parameters of the beta distribution of the share; 0 is off")
    cutmix: float = Field(0.0, ge=0, description="both parameters of the beta distribution of the area; 0 is off")
    balance: Literal["none", "weights", "sampling"] = Field("none", description="give rare classes their due")
    transfer: TransferConfig = TransferConfig()

    @model_validator(mode="after")
    def _weights_have_a_network(self) -> Config:
        if self.architecture in OWN and self.weights != "none":
            raise ValueError(
                f"{self.architecture} has no pretrained weights: set weights: none, or an architecture such as {LITE}"
            )
        return self

    @property
    def headline(self) -> Headline:
        return Headline("macro_f1") if self.multi_label else Headline("accuracy", share=True)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Besides `top5`, reported from six classes on."""
        return ("accuracy", "loss", "macro_f1", "map" if self.multi_label else "ece")

    @classmethod
    def networks(cls) -> dict[str, dict[str, Any]]:
        """The shapes of `convnet`, from a random start, and how it pools."""
        fixed = {"architecture": CONVNET, "weights": "none", "transfer.freeze": False}
        return {
            **{key: {"choice": [value]} for key, value in fixed.items()},
            "pool": {"choice": ["place", "max", "average"]},
            **shapes(),
        }

    @property
    def files(self) -> tuple[str, ...]:
        return weight_files(self.weights)

    @classmethod
    def starter(cls, card: Card) -> dict[str, Any] | None:
        """Transfer for colour images of the size of photographs, the small network for all others."""
        if card.annotation not in ("class", "labels"):
            return None
        from assay.data.starter import batch_size, image_size

        multi_label = card.annotation == "labels"
        task: dict[str, Any] = {"name": "classification", "image_size": image_size(card.short_side)}
        task |= {"multi_label": True} if multi_label else {}
        train = {"epochs": 20, "batch_size": batch_size(card.samples["train"]), "workers": 1}
        if card.channels == 3 and card.short_side >= PHOTOGRAPH:
            task |= {"architecture": LITE, "weights": "imagenet", "image_size": max(task["image_size"], 96)}
            task |= {"augment": {"flip": True, "shift": 0.1}}
            task |= {"transfer": {"freeze": True, "unfreeze": [0.4, 0.6], "decay": 0.3}}
            train |= {"epochs": 10}
        else:
            task |= {"architecture": SMALL}
        return {
            "task": task,
            "optimizer": {"name": "adamw", "lr": 3.0e-3, "weight_decay": 0.05, "schedule": "cosine", "warmup": 0.05},
            "train": train,
            "gate": {"min": {f"test/{cls(**task).headline.metric}": floor(card)}},
        }


def floor(card: Card) -> float:
    """A little more than any model-free answer: always the largest class, or always all classes."""
    total, counts = card.samples["test"], card.counts["test"].values()
    if card.annotation == "class":
        blind = max(counts) / total
    else:  # F1 of a class that is always named: precision is its share, recall is 1
        blind = sum(2 * count / (count + total) for count in counts) / len(counts)
    return min(math.floor(blind * 100 + 1) / 100, 0.99)
