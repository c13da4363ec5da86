"""Predicts the scores of untried points from the results so far: a Gaussian process over the rows of a space.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006: the Matérn 5/2 kernel of section 4.2 on a
distance that weighs each parameter by its own relevance, and the marginal likelihood of section 5.4.1 to learn
them. scikit-learn's kernels cannot share a relevance among the columns that an unordered choice takes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from assay.tune.coding import ABSENT, Coding, Rows
from assay.tune.space import Parameter

Numbers = NDArray[np.float64]
ROOT = 5**0.5
RELEVANCE = (-0.5, 1.5)  # mean and deviation of the logarithm of a relevance, before anything is known
NOISE = (-5.0, 1.5)  # of the logarithm of the part of the variance that is noise


class Surrogate:
    """Learns scores and how certain they are.

    `learn` takes the results, `predict` returns mean and deviation at other rows. The relevances are learnt again after
    a tenth more results, starting from the previous ones.
    """

    def __init__(self, coding: Coding) -> None:
        self.coding = coding
        self.groups = _groups(coding)
        self.logs = np.append(np.full(len(coding.space.parameters), RELEVANCE[0]), NOISE[0])
        self.learnt = 0

    def learn(self, rows: Rows, scores: Numbers, believed: Rows) -> None:
        """Learn results, rows [N, parameters] with scores [N]; at rows under way the mean is `believed`."""
        self.features = _features(self.coding, rows)
        if len(rows) >= 1.1 * self.learnt:
            self.learnt = len(rows)
            prior = np.append(np.tile(RELEVANCE, (len(self.logs) - 1, 1)), [NOISE], 0)
            best = minimize(
                _unlikeliness, self.logs, (self.features, scores, self.groups, prior), "L-BFGS-B", jac=True,
                bounds=[(-8.0, 4.0)] * (len(self.logs) - 1) + [(-12.0, 0.0)], options={"maxiter": 12},
            )  # fmt: skip
            self.logs = best.x
        self._factor(scores)
        if len(believed):
            mean, _ = self.predict(believed)
            self.features = np.concatenate([self.features, _features(self.coding, believed)])
            self._factor(np.concatenate([scores, mean]))

    def _factor(self, scores: Numbers) -> None:
        self.scaled = self.features * np.exp(self.logs[self.groups] / 2)
        kernel, _ = _matern(_squares(self.scaled, self.scaled))
        kernel[np.diag_indices_from(kernel)] += np.exp(self.logs[-1])
        self.mean = float(scores.mean())
        self.root = cholesky(kernel, lower=True, check_finite=False)
        self.weights = cho_solve((self.root, True), scores - self.mean, check_finite=False)
        self.variance = float((scores - self.mean) @ self.weights) / len(scores)

    def predict(self, rows: Rows) -> tuple[Numbers, Numbers]:
        """Mean and standard deviation [N] of the scores at rows [N, parameters]."""
        scaled = _features(self.coding, rows) * np.exp(self.logs[self.groups] / 2)
        cross, _ = _matern(_squares(self.scaled, scaled))
        solved = solve_triangular(self.root, cross, lower=True, check_finite=False)
        left = np.maximum(1.0 - np.einsum("ij,ij->j", solved, solved), 1e-9)
        return self.mean + cross.T @ self.weights, np.sqrt(self.variance * left)


def _groups(coding: Coding) -> NDArray[np.intp]:
    """The parameter of each column of `_features`."""
    return np.concatenate([np.full(_width(p), c) for c, p in enumerate(coding.space.parameters)]).astype(np.intp)


def _width(parameter: Parameter) -> int:
    return 2 if parameter.ordered else len(parameter.choices or ()) + 1


def _features(coding: Coding, rows: Rows) -> Numbers:
    """Columns in which two values of a choice without order, or counting and not counting, are at a distance of 1."""
    units, found = coding.units(rows), []
    for column, parameter in enumerate(coding.space.parameters):
        absent = rows[:, column] == ABSENT
        if parameter.ordered:
            found.append(np.where(absent, 0.5, units[:, column])[:, None])
        else:
            found.append((rows[:, [column]] == np.arange(_width(parameter) - 1)) * 0.5**0.5)
        found.append(absent[:, None] * (1.0 if parameter.ordered else 0.5**0.5))
    features: Numbers = np.concatenate(found, 1)
    return features


def _squares(first: Numbers, second: Numbers) -> Numbers:
    """Squared distances [N, M]."""
    squares: Numbers = np.maximum((first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T, 0.0)
    return squares


def _matern(squares: Numbers) -> tuple[Numbers, Numbers]:
    """The kernel at squared distances, and its derivative by them."""
    far = ROOT * np.sqrt(squares)
    fading = np.exp(-far)
    return (1 + far + far**2 / 3) * fading, -5 / 6 * (1 + far) * fading


def _unlikeliness(
    logs: Numbers, features: Numbers, scores: Numbers, groups: NDArray[np.intp], prior: Numbers
) -> tuple[float, Numbers]:
    """The negative logarithm of the posterior, up to a constant, and its gradient; the scale of scores is profiled."""
    count = len(scores)
    scaled = features * np.exp(logs[groups] / 2)
    kernel, slope = _matern(_squares(scaled, scaled))
    noise = np.exp(logs[-1])
    kernel[np.diag_indices(count)] += noise
    root = cholesky(kernel, lower=True, check_finite=False)
    inverse = cho_solve((root, True), np.eye(count), check_finite=False)
    centered = scores - scores.mean()
    weights = inverse @ centered
    variance = max(float(centered @ weights) / count, 1e-12)
    pull = inverse - np.outer(weights, weights) / variance
    sloped = pull * slope
    columns = (scaled**2 * sloped.sum(1)[:, None]).sum(0) - (scaled * (sloped @ scaled)).sum(0)
    gradient = np.append(np.bincount(groups, columns), 0.5 * noise * np.trace(pull))
    strange = (logs - prior[:, 0]) / prior[:, 1]
    value = 0.5 * count * np.log(variance) + float(np.log(np.diag(root)).sum()) + 0.5 * float(strange @ strange)
    return value, gradient + strange / prior[:, 1]
