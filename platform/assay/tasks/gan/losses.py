"""The losses of the two networks of a GAN: scores of pairs, and slopes of the scores.

Scores are logits [B] of a discriminator, high for real. All results are means over the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def relativistic(winner: Tensor, loser: Tensor) -> Tensor:
    """The relativistic pairing loss: small where each winner scores above the loser of its pair.

    The discriminator learns from `relativistic(real, fake)`, the generator from `relativistic(fake, real)`
    (Huang, Gokaslan, Kuleshov and Tompkin, "The GAN is dead; long live the GAN! A Modern Baseline GAN", NeurIPS 2024,
    equation 2, with f(t) = -log(1 + exp(-t))).
    """
    return F.softplus(loser - winner).mean()


def slopes(scores: Tensor, inputs: Tensor) -> Tensor:
    """The squared norm [B] of the gradient of each score at its input [B, ...], itself differentiable.

    A mean of it over real inputs is the penalty R1, over generated ones R2, up to a weight (the same paper,
    equation 4). Samples must not affect each other's scores: no batch normalization.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), inputs, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def judged_real(scores: Tensor) -> Tensor:
    """Cross entropy of the answer "real", which also is the non-saturating loss of the generator.

    Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, section 3.
    """
    return F.softplus(-scores).mean()


def judged_fake(scores: Tensor) -> Tensor:
    """Cross entropy of the answer "generated"."""
    return F.softplus(scores).mean()
