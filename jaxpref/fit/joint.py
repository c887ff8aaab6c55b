r"""How scores and the coefficients beside them vary together.

The parameters are the scores, the coefficients of the columns, those of the item covariates and
the tie parameter. Their information is that of the likelihood plus the prior's, on score
deviations u = s - X gamma: ridge times (I, -X; -X^T, X^T X).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from .._checks import InputError
from .base import centred
from .design import Design
from .information import blocks, design_of, terms_of
from .outcomes import CellTerms
from .rankings_result import RankingFit
from .result import FitResult

Fit = FitResult | RankingFit


class JointCovariance(NamedTuple):
    """Covariances of scores and of the coefficients in ``fit.effects``, nats^2.

    Scores are in the gauge where they sum to zero; `cross` has a row for each item.
    """

    scores: Float64[np.ndarray, "items items"]
    cross: Float64[np.ndarray, "items effects"]
    effects: Float64[np.ndarray, "effects effects"]


def joint_covariance(fit: Fit) -> JointCovariance:
    """Return the covariances of scores and coefficients together, from the expected information.

    Its scores are ``fit.covariance()``.

    Parameters
    ----------
    fit : FitResult or RankingFit
        Any fit; the coefficients of rankings are the log tie parameters.

    >>> import numpy as np
    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> one, two = np.array([0]), np.array([1])
    >>> votes = Comparisons(("a", "b"), one, two, 1.0 + one, 1.0 + one, 2.0 + one)
    >>> joint = joint_covariance(fit_pairwise(votes, ties="davidson"))
    >>> joint.scores.round(9).tolist(), joint.effects.round(9).tolist()
    ([[0.5, -0.5], [-0.5, 0.5]], [[1.0]])
    """
    if isinstance(fit, RankingFit):
        return split(fit, ranking_bread(fit))
    if fit.plain:
        none = np.zeros((fit.num_items, 0))
        return JointCovariance(fit.covariance(), none, np.zeros((0, 0)))
    design = design_of(fit)
    return split(fit, bread(design, terms_of(fit, design, expected=True)))


def bread(design: Design, terms: CellTerms) -> Float64[np.ndarray, "parameters parameters"]:
    """Return the inverse of the information plus the prior's, in the gauge of the scores.

    Without scores of their own the parameters are the columns' coefficients and the tie parameter.
    """
    found = blocks(design, terms)
    width, items = design.columns.shape[1], design.item_columns
    if not design.own_scores:
        return np.linalg.inv(found.inner)
    size, explained = design.num_items, items.shape[1]
    prior = design.ridge * np.block([[np.eye(size), -items], [-items.T, items.T @ items]])
    # Scores, columns, item columns, tie.
    total = size + found.inner.shape[0] + explained
    column = np.arange(size, size + width)
    item = np.arange(size + width, size + width + explained)
    tie = np.arange(size + width + explained, total)
    rest, scores = np.concatenate([column, tie]), np.arange(size)
    matrix = np.zeros((total, total))
    matrix[np.ix_(scores, scores)] = found.scores
    matrix[np.ix_(scores, rest)] = found.border
    matrix[np.ix_(rest, scores)] = found.border.T
    matrix[np.ix_(rest, rest)] = found.inner
    both = np.concatenate([scores, item])
    matrix[np.ix_(both, both)] += prior
    return in_gauge(matrix, size)


def in_gauge(
    information: Float64[np.ndarray, "parameters parameters"], num_items: int
) -> Float64[np.ndarray, "parameters parameters"]:
    """Return the inverse where the first parameters are scores, which sum to zero."""
    filled = information.copy()
    shift = float(np.max(np.diagonal(information)[:num_items])) / num_items
    filled[:num_items, :num_items] += shift
    inverse = np.linalg.inv(filled)
    inverse[:num_items] -= inverse[:num_items].mean(axis=0, keepdims=True)
    inverse[:, :num_items] -= inverse[:, :num_items].mean(axis=1, keepdims=True)
    return (inverse + inverse.T) / 2


def ranking_bread(fit: RankingFit) -> Float64[np.ndarray, "parameters parameters"]:
    """Return the inverse information of rankings about scores and log tie parameters."""
    size = fit.num_items
    information = fit.full_information().copy()
    information[np.arange(size), np.arange(size)] += fit.ridge
    return in_gauge(information, size)


def split(fit: Fit, matrix: Float64[np.ndarray, "parameters parameters"]) -> JointCovariance:
    """Return the parts of a covariance of all parameters."""
    size = fit.num_items
    if isinstance(fit, RankingFit) or fit.design is None or fit.design.own_scores:
        return JointCovariance(centred(matrix[:size, :size]), matrix[:size, size:],
                               matrix[size:, size:])  # fmt: skip
    explained = [k for k, (_, kind) in enumerate(fit.design.names) if kind == "item_covariate"]
    x = fit.design.item_features
    scores = x @ matrix[np.ix_(explained, explained)] @ x.T
    return JointCovariance(centred(scores), x @ matrix[explained], matrix)


def joint_of(fit: Fit, covariance: Any) -> JointCovariance:
    """Return the fit's own joint covariance for None, and what is given if it is one."""
    if covariance is None:
        return joint_covariance(fit)
    if not isinstance(covariance, JointCovariance):
        raise InputError(
            "covariance: expected a JointCovariance, for a tie parameter, order effect or "
            "covariate takes part (joint_covariance, joint_sandwich, BootstrapResult."
            f"joint_covariance); got {type(covariance).__name__}"
        )
    score_covariance(fit, covariance)
    if covariance.effects.shape[0] != len(fit.effects):
        raise InputError(
            f"covariance: expected {len(fit.effects)} coefficients; got "
            f"{covariance.effects.shape[0]}"
        )
    return covariance


def score_covariance(fit: Fit, covariance: Any) -> Float64[np.ndarray, "items items"]:
    """Return the covariance of scores: the fit's own for None, or what is given, checked."""
    if covariance is None:
        return fit.covariance()
    given = covariance.scores if isinstance(covariance, JointCovariance) else covariance
    matrix, size = np.asarray(given, float), fit.num_items
    if matrix.shape != (size, size):
        raise InputError(f"covariance: expected shape {(size, size)}; got {matrix.shape}")
    return matrix
