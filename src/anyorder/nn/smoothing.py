r"""Randomised smoothing: certified radii of a classifier that can only be queried.

The smoothed classifier returns the class that the base classifier returns most often for the input
plus noise :math:`N(0, \sigma^2 I)`. If the probability of that class is at least
:math:`\underline{p} > 1/2`, no perturbation of Euclidean norm below
:math:`\sigma \Phi^{-1}(\underline{p})` changes it. :math:`\underline{p}` is the lower end of a
one-sided Clopper-Pearson interval, so a radius is too large with probability ``alpha`` at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.errors import AnyOrderError
from anyorder.extras import require
from anyorder.points.directions import Seeded

#: Noise vectors that are generated together; the noise does not depend on ``rows``.
BLOCK = 100


class SmoothingError(AnyOrderError, ValueError):
    """A setting, or an answer of a classifier, that does not fit."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The prediction of a smoothed classifier and its radius.

    Attributes:
        label: the class; ``None`` if the classifier abstains.
        radius: Euclidean norm of perturbations that provably do not change it, in units of the
            inputs; 0 if it abstains.
        votes: noisy copies that were classified as the candidate class.
        samples: noisy copies that were classified.
    """

    label: int | None
    radius: float
    votes: int
    samples: int


def certify(
    classify: Callable[[Any], Any],
    inputs: Tensor,
    *,
    sigma: float,
    selection: int = 100,
    samples: int = 10_000,
    alpha: float = 0.001,
    rows: int = 10_000,
    seed: int = 0,
) -> list[Certificate]:
    """Certify the predictions of a smoothed classifier.

    Cost: ``selection + samples`` classified inputs each. The noise is a pure function of ``seed``
    and the position of the input. Needs SciPy.

    Args:
        classify: returns one whole-number label per input, shape ``(n,)``; called under
            ``no_grad``.
        inputs: shape ``(n, ...)``, real floating point.
        sigma: standard deviation of the noise, in units of the inputs.
        selection: noisy copies from which the candidate class is chosen.
        samples: independent noisy copies from which its probability is estimated.
        alpha: probability, for each input, that its radius is too large.
        rows: most inputs per call.
        seed: seed of the noise.

    Raises:
        SmoothingError: a setting or an answer does not fit.
        MissingExtraError: SciPy is not installed.

    Example:
        >>> import torch
        >>> from anyorder.nn import certify
        >>> halves = lambda x: (x[:, 0] > 0).long()  # the boundary is at 0
        >>> (found,) = certify(halves, torch.tensor([[0.5, 0.0]]), sigma=0.5, samples=1000)
        >>> found.label, 0.35 < found.radius < 0.5  # the true radius is 0.5
        (1, True)

    References:
        Cohen, Rosenfeld and Kolter (2019), "Certified Adversarial Robustness via Randomized
        Smoothing", arXiv 1902.02918, algorithm CERTIFY.
    """
    if not (isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.ndim):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise SmoothingError("inputs: expected a real tensor with one row per input")
    if not 0 < sigma < math.inf:
        raise SmoothingError(f"sigma: expected a standard deviation > 0, got {sigma!r}")
    for name, count in (("selection", selection), ("samples", samples), ("rows", rows)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SmoothingError(f"{name}: expected a whole number >= 1, got {count!r}")
    found: list[Certificate] = []
    for place, point in enumerate(inputs.detach()):
        labels = _labels(classify, point, sigma, selection + samples, rows, (seed, place))
        candidate = int(np.bincount(labels[:selection]).argmax())
        votes = int((labels[selection:] == candidate).sum())
        bound = lower_bound(votes, samples, alpha)
        sure = bound > 0.5
        radius = sigma * _normal_quantile(bound) if sure else 0.0
        found.append(Certificate(candidate if sure else None, radius, votes, samples))
    return found


def certified_accuracy(
    certificates: Sequence[Certificate], labels: Sequence[int] | Tensor, radius: float = 0.0
) -> float:
    """Return the share of inputs that are classified correctly with at least this radius.

    Args:
        certificates: the certificates.
        labels: the true labels, in the same order.
        radius: at 0, an input counts unless the classifier abstains.

    Raises:
        SmoothingError: there are no inputs, or not as many labels.
    """
    if len(certificates) != len(labels) or not certificates:
        raise SmoothingError(
            f"expected one label per certificate, got {len(certificates)} certificates and "
            f"{len(labels)} labels"
        )
    right = [
        c.label is not None and c.label == int(label) and c.radius >= radius
        for c, label in zip(certificates, labels, strict=True)
    ]
    return sum(right) / len(right)


def lower_bound(successes: int, trials: int, alpha: float) -> float:
    """Return the lower end of the one-sided Clopper-Pearson interval of a probability.

    Args:
        successes: between 0 and ``trials``.
        trials: at least 1.
        alpha: probability that the bound exceeds the true one, in (0, 1).

    Raises:
        SmoothingError: a number is out of range.

    Example:
        >>> round(lower_bound(1000, 1000, 0.001), 6)  # alpha ** (1 / trials)
        0.993116
    """
    if not 0 <= successes <= trials or trials < 1:
        raise SmoothingError(
            f"expected successes between 0 and trials >= 1, got {successes} of {trials}"
        )
    if not 0 < alpha < 1:
        raise SmoothingError(f"alpha: expected a probability in (0, 1), got {alpha!r}")
    if successes == 0:
        return 0.0
    special = require("scipy.special")
    return float(special.betaincinv(successes, trials - successes + 1, alpha))


def _normal_quantile(probability: float) -> float:
    return float(require("scipy.special").ndtri(probability))


@torch.no_grad()
def _labels(
    classify: Callable[[Any], Any],
    point: Tensor,
    sigma: float,
    count: int,
    rows: int,
    key: tuple[int, int],
) -> np.ndarray:
    """Labels of noisy copies of one input, shape ``(count,)``."""
    parts: list[np.ndarray] = []
    waiting: list[Tensor] = []
    for block in range(-(-count // BLOCK)):
        like = torch.empty(BLOCK, *point.shape, dtype=torch.float32, device=point.device)
        noise = Seeded(*key, block).tensor("noise", like, _ENGINE)
        waiting.append(point + sigma * noise.to(point.dtype))
        last = (block + 1) * BLOCK >= count
        if last or (len(waiting) + 1) * BLOCK > rows:
            asked = torch.cat(waiting).split(rows)
            parts += [_checked_labels(classify(some), len(some)) for some in asked]
            waiting = []
    return np.concatenate(parts)[:count]


_ENGINE = Engine("eager")


def _checked_labels(answer: Any, count: int) -> np.ndarray:
    if isinstance(answer, Tensor):
        answer = answer.cpu().numpy()
    labels = cast("np.ndarray[Any, Any]", np.asarray(answer))
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or (labels < 0).any():
        raise SmoothingError(
            f"expected {count} labels, whole numbers >= 0 of shape ({count},), got "
            f"{labels.dtype} of shape {labels.shape}; write scores.argmax(1)"
        )
    return labels
