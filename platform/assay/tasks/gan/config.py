"""What a generative adversarial network lets the user choose."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from assay.config.experiment import Decay
from assay.config.plugin import Headline, TaskConfig
from assay.config.schema import Frozen


class AugmentConfig(Frozen):
    """Changes that real and generated images undergo before the discriminator sees them. Zero switches one off."""

    colour: float = Field(0.0, ge=0, le=1, description="strength; 1 is that of the paper")
    translation: float = Field(0.0, ge=0, le=0.5, description="largest shift, as a fraction of the side")
    cutout: float = Field(0.0, ge=0, le=0.75, description="side of the square that is blanked, as a fraction")


class Config(TaskConfig):
    """A generator of images, and the discriminator that it learns from."""

    name: Literal["gan"] = "gan"
    loss: Literal["r3gan", "dcgan"] = "r3gan"
    conditional: bool = Field(True, description="generate images of a given class; false: of any")
    image_size: Literal[8, 16, 32, 64, 128, 256] = Field(32, description="pixels a side")
    latent: int = Field(32, ge=1, le=1024, description="numbers that one image is generated from, besides its class")
    width: int = Field(16, ge=4, le=512, description="channels at half of the image; 8 times it at most")
    depth: int = Field(2, ge=1, le=8, description="residual blocks a size, of r3gan")
    discriminator_width: int | None = Field(None, ge=4, le=512, description="none: `width`, as in the generator")
    discriminator_depth: int | None = Field(None, ge=1, le=8, description="none: `depth`, as in the generator")
    penalty: float | None = Field(
        None, ge=0, description="weight of R1 and of R2, of r3gan; none: by the image's size, 0.1 for 8 x 8 pixels"
    )
    penalty_end: float = Field(0.5, gt=0, le=1, description="factor on the penalty that it falls to by the end")
    discriminator_lr: float = Field(1.0, gt=0, description="factor on optimizer.lr")
    ema: Decay = Field(0.99, description="decay of the averaged generator, the one that is kept; 0: no averaging")
    ema_warmup: float = Field(0.1, ge=0, lt=1, description="fraction of the training over which the decay grows")
    augment: AugmentConfig = AugmentConfig()
    repeats: int = Field(1, ge=1, description="times that an epoch shows each image")
    features: Literal["lite0", "pixels"] = Field("lite0", description="in which images are compared")

    @property
    def headline(self) -> Headline:
        return Headline(f"frechet_{self.features}", maximize=False)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Without `conditional`, `judge_accuracy` and `classes_present` are still reported if images have a class."""
        shares = ("precision", "recall", "density", "coverage", "diversity", "collapsed")
        named = ("class_accuracy", "judge_accuracy", "classes_present") if self.conditional else ()
        return (self.headline.metric, *shares, *named)

    @classmethod
    def networks(cls) -> dict[str, dict[str, Any]]:
        """Both networks of `r3gan`, each by itself."""
        sizes = {"width": {"choice": [8, 12, 16, 24, 32]}, "depth": {"integer": [1, 3]}}
        return {
            "loss": {"choice": ["r3gan"]},
            "latent": {"choice": [8, 16, 32, 64]},
            **sizes,
            **{f"discriminator_{key}": values for key, values in sizes.items()},
        }

    @property
    def slope_weight(self) -> float:
        """Of the squared slopes of the scores: 0 if the loss has no such penalty.

        Slopes are summed over pixels, and equal pictures of more pixels differ in more of them.
        """
        if self.loss != "r3gan":
            return 0.0
        return 0.1 * (self.image_size / 8) ** 2 if self.penalty is None else self.penalty
