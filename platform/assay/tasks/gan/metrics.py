"""How far generated images are from real ones: distances and shares in a space of features.

Features are float64 [N, D] of real and [M, D] of generated images. The metric's name must name the space.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
NEIGHBOURS = 5


def frechet(real: Rows, fake: Rows) -> float:
    """The squared Fréchet distance between two Gaussians of the rows' means and covariances.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) (Dowson and Landau, 1982; Heusel et al., NeurIPS 2017, equation 6). The
    trace of the root is the sum of the singular values of A Bᵀ where C1 = Aᵀ A and C2 = Bᵀ B: the centred rows are
    such factors, so nothing is inverted and no covariance need have full rank.
    """
    means = real.mean(0) - fake.mean(0)
    one, other = _factor(real), _factor(fake)
    cross = np.linalg.svd(one @ other.T, compute_uv=False).sum()
    return max(0.0, float(means @ means + (one**2).sum() + (other**2).sum() - 2 * cross))


def _factor(rows: Rows) -> Rows:
    """F [min(N, D), D] with Fᵀ F the covariance of the rows [N, D]."""
    centred: Rows = (rows - rows.mean(0)) / np.sqrt(max(len(rows) - 1, 1))
    if len(centred) <= centred.shape[1]:
        return centred
    triangle: Rows = np.linalg.qr(centred, mode="r")  # type: ignore[assignment] # this mode gives one array
    return triangle


def neighbourhood(real: Rows, fake: Rows, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).

    A ball around each row reaches to its k-th nearest other row of the same kind. Precision: the share of generated
    rows in some real ball; recall: of real rows in some generated ball; density: the mean number of real balls around
    a generated row, over k; coverage: the share of real balls with a generated row in them.
    """
    distance = _distances(real, fake)
    of_real = distance <= _radii(real, k)[:, None]
    of_fake = distance <= _radii(fake, k)[None]
    return {
        "precision": float(of_real.any(0).mean()),
        "recall": float(of_fake.any(1).mean()),
        "density": float(of_real.sum(0).mean() / k),
        "coverage": float(of_real.any(1).mean()),
    }


def diversity(real: Rows, fake: Rows, real_labels: NDArray[np.int64], fake_labels: NDArray[np.int64]) -> float:
    """The spread of generated rows around the mean of their class, over that of the real rows: 1 is as diverse."""
    return float(np.sqrt(_scatter(fake, fake_labels) / max(_scatter(real, real_labels), 1e-12)))


def _scatter(rows: Rows, labels: NDArray[np.int64]) -> float:
    """The mean squared distance of the rows to the mean of their class."""
    total = sum(((rows[labels == k] - rows[labels == k].mean(0)) ** 2).sum() for k in np.unique(labels))
    return float(total / len(rows))


def _radii(rows: Rows, k: int) -> Rows:
    """The distance of each row to its k-th nearest other row; to the farthest, if there are fewer."""
    distance = _distances(rows, rows)
    np.fill_diagonal(distance, 0)
    ordered: Rows = np.sort(distance, axis=1)[:, min(k, len(rows) - 1)]
    return ordered


def _distances(one: Rows, other: Rows) -> Rows:
    from scipy.spatial.distance import cdist

    found: Rows = cdist(one, other)
    return found
