"""How far two pictures differ in content and in style, to a frozen network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.networks import catalog
from assay.tasks.style_transfer.config import Config


@dataclass(frozen=True)
class Losses:
    """Of each picture, [B]. `total` is their weighted sum, which training lowers."""

    style: Tensor
    content: Tensor
    variation: Tensor
    total: Tensor


class PerceptualLoss:
    """The perceptual network with the Gram matrices of all styles. Nothing in it is learnt.

    Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016. Each layer's error
    is taken relative to the mean square of its target, so that layers, styles and networks weigh alike.

    Args:
        styles: uint8 [N, 3, S, S].
    """

    def __init__(self, config: Config, styles: Tensor, device: torch.device) -> None:
        self.config = config
        choice = config.perceptual
        layers = tuple(dict.fromkeys((*choice.style_layers, *choice.content_layers)))
        with torch.random.fork_rng(devices=[]):  # a random network is always the same one
            torch.manual_seed(0)
            self.network = catalog.perceptual(choice.architecture, weights=choice.weights, layers=layers).to(device)
        self.origin = self.network.origin
        mean, std = catalog.normalization(choice.architecture)
        self.mean = torch.tensor(mean, device=device).reshape(-1, 1, 1)
        self.std = torch.tensor(std, device=device).reshape(-1, 1, 1)
        with torch.no_grad():
            features = [self.features(style[None].to(device) / 255) for style in styles]
        self.grams = {
            layer: torch.cat([gram(one[layer]) for one in features]).contiguous() for layer in choice.style_layers
        }

    def features(self, pictures: Tensor) -> Mapping[str, Tensor]:
        """The activations of pictures [B, 3, H, W] in 0..1."""
        found: Mapping[str, Tensor] = self.network((pictures - self.mean) / self.std)
        return found

    def style_loss(self, features: Mapping[str, Tensor], style: Tensor) -> Tensor:
        """[B]: how far the pictures are from the styles of these numbers, int64 [B]; 1 is as far as no texture.

        The mean over layers of the squared error of the Gram matrices relative to the mean square of the style's.
        """
        terms = []
        for layer, grams in self.grams.items():
            target = grams[style]
            error = (gram(features[layer]) - target).square().mean((1, 2))
            terms.append(error / target.square().mean((1, 2)))
        return torch.stack(terms).mean(0)

    def content_loss(self, features: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Tensor:
        """[B]: the squared error of the activations relative to the mean square of the reference's, over layers."""
        terms = []
        for layer in self.config.perceptual.content_layers:
            wanted = reference[layer].float()
            error = (features[layer].float() - wanted).square().mean((1, 2, 3))
            terms.append(error / wanted.square().mean((1, 2, 3)).clamp_min(1e-8))
        return torch.stack(terms).mean(0)

    def losses(self, pictures: Tensor, reference: Mapping[str, Tensor], style: Tensor) -> Losses:
        """All losses of pictures [B, 3, H, W] in 0..1 against the activations of their contents and style numbers."""
        features = self.features(pictures)
        with torch.autocast(pictures.device.type, enabled=False):
            style_loss = self.style_loss(features, style)
            content, variation = self.content_loss(features, reference), total_variation(pictures.float())
            weights = self.config
            total = (
                weights.style_weight * style_loss
                + weights.content_weight * content
                + weights.variation_weight * variation
            )
        return Losses(style_loss, content, variation, total)


def gram(features: Tensor) -> Tensor:
    """[B, C, H, W] to [B, C, C]: inner products of the channels over all places, divided by C H W. In 32 bits.

    Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016,
    equation 3.
    """
    size = features.shape[1] * features.shape[2] * features.shape[3]
    rows = features.float().permute(0, 2, 3, 1).flatten(1, 2)  # a view where the layout is channels-last
    return rows.transpose(1, 2) @ rows / size


def total_variation(pictures: Tensor) -> Tensor:
    """[B]: the mean squared difference of neighbouring pixels, across plus down, of pictures [B, 3, H, W] in 0..1.

    Mahendran and Vedaldi, "Understanding Deep Image Representations by Inverting Them", CVPR 2015, with beta 2.
    """
    down = (pictures[:, :, 1:] - pictures[:, :, :-1]).square().mean((1, 2, 3))
    across = (pictures[..., 1:] - pictures[..., :-1]).square().mean((1, 2, 3))
    return down + across


def rolled(pictures: Tensor, shift: Tensor) -> Tensor:
    """Each of [B, 3, H, W] moved down and right by its own `shift`, int64 [B, 2], around the border.

    A perceptual network that halves the side sees even and odd pixels with different weights, and pictures that suit
    it in one position only show a lattice of dots. Seen in changing positions, they do not.
    """
    pairs = zip(pictures, shift.tolist(), strict=True)
    return torch.stack([torch.roll(picture, tuple(by), (1, 2)) for picture, by in pairs])
