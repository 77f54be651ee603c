"""Polar factors of matrices by Newton-Schulz rounds: products of matrices and nothing else.

A round maps every singular value :math:`s` to :math:`a s + b s^3 + c s^5`. With suitable numbers a
few rounds bring all of them near 1 and leave the singular vectors alone, which gives the orthogonal
factor of the polar decomposition without a decomposition.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from anyorder.engine.tensors import full_precision
from anyorder.errors import AnyOrderError

Round = tuple[float, float, float]

#: Jordan's numbers, the same for each of five rounds: as steep at 0 as possible, and therefore not
#: convergent. Singular values above a hundredth of the norm end between 0.68 and 1.14.
JORDAN: tuple[Round, ...] = ((3.4445, -4.7750, 2.0315),) * 5
#: The round that converges fastest once all singular values are near 1 (order three).
CUBIC: Round = (15 / 8, -10 / 8, 3 / 8)
#: Matrices are stacked up to this many elements.
BATCH = 1 << 26


class NewtonSchulzError(AnyOrderError, ValueError):
    """Something that is not a matrix, or rounds that make no sense."""


def newton_schulz(
    matrices: Tensor,
    rounds: Sequence[Round] = JORDAN,
    *,
    dtype: torch.dtype | None = None,
    eps: float = 1e-7,
) -> Tensor:
    """Bring the singular values of matrices near 1.

    Args:
        matrices: shape ``(..., rows, columns)``.
        rounds: the numbers ``(a, b, c)`` of each round.
        dtype: the precision of the products; by default bfloat16 on CUDA, elsewhere float32, and
            float64 for matrices in float64.
        eps: Frobenius norms below this count as this; a zero matrix stays zero.

    Returns:
        New tensors of the same shape and dtype as ``matrices``. Costs two products of
        ``(m, m, n)`` and one of ``(m, m, m)`` for each round, with ``m`` the shorter side.

    References:
        Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks".
    """
    if matrices.ndim < 2:
        raise NewtonSchulzError(f"expected matrices, got shape {tuple(matrices.shape)}")
    if not matrices.numel():
        return matrices.clone()
    rows, columns = matrices.shape[-2:]
    wide = torch.promote_types(matrices.dtype, torch.float32)
    x = _stack(matrices).to(wide)
    x = x.mT if rows > columns else x
    # The Frobenius norm bounds the largest singular value; it is taken in full precision.
    size = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    x = (x / size.clamp(min=eps)).to(dtype or _products(wide, matrices.device))
    with full_precision(x):
        for a, b, c in rounds:
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.mT if rows > columns else x
    return x.to(matrices.dtype).reshape(matrices.shape)


def _products(wide: torch.dtype, device: torch.device) -> torch.dtype:
    """The precision of the products where none is asked for."""
    fast = device.type == "cuda" and wide is torch.float32
    return torch.bfloat16 if fast else wide


def newton_schulz_each(
    matrices: Sequence[Tensor],
    rounds: Sequence[Round] = JORDAN,
    *,
    dtype: torch.dtype | None = None,
) -> list[Tensor]:
    """:func:`newton_schulz` of many matrices, those of equal shape and device in one batch.

    Args:
        matrices: shapes ``(..., rows, columns)``; all leading axes are batched as well.
        rounds: as there.
        dtype: as there.

    Returns:
        Tensors like the given ones, in their order.
    """
    alike: dict[Hashable, list[int]] = {}
    for index, matrix in enumerate(matrices):
        key = (matrix.shape[-2:], matrix.device, matrix.dtype)
        alike.setdefault(key, []).append(index)
    done: dict[int, Tensor] = {}
    for indices in alike.values():
        for some in _batches(indices, matrices):
            stacks = [_stack(matrices[i]) for i in some]
            whole = newton_schulz(torch.cat(stacks), rounds, dtype=dtype)
            for i, part in zip(some, whole.split([len(s) for s in stacks]), strict=True):
                done[i] = part.reshape(matrices[i].shape)
    return [done[i] for i in range(len(matrices))]


def _stack(matrices: Tensor) -> Tensor:
    """From ``(..., rows, columns)`` to three axes, empty ones too."""
    return matrices.flatten(0, -3) if matrices.ndim > 2 else matrices.unsqueeze(0)


def _batches(indices: Sequence[int], matrices: Sequence[Tensor]) -> list[list[int]]:
    """The indices in runs of at most :data:`BATCH` elements, or of one matrix."""
    runs: list[list[int]] = []
    room = 0
    for index in indices:
        size = matrices[index].numel()
        if not runs or size > room:
            runs.append([])
            room = BATCH
        runs[-1].append(index)
        room -= size
    return runs


# Numbers for the rounds --------------------------------------------------------------------


@functools.cache
def minimax_rounds(
    smallest: float = 1e-3, count: int = 5, safety: float = 1.01
) -> tuple[Round, ...]:
    r"""Rounds that bring all singular values in ``[smallest, 1]`` as near to 1 as can be.

    Each round is the odd polynomial of degree five that is nearest to 1, in the largest error, on
    the interval that the rounds before it left; the composition of these is the best there is of
    its kind. From 1e-3 five rounds leave errors up to 0.14 and six up to 0.004, where five of
    Jordan's leave 0.53 and more of them never less than 0.32.

    Args:
        smallest: singular values below it stay below 1, above it they end near 1.
        count: how many rounds.
        safety: all rounds but the last work as if singular values were larger by this factor, so
            that rounding in half precision does not push them out of the interval. 1 for none.

    Raises:
        NewtonSchulzError: ``smallest`` not in (0, 1), no rounds, or ``safety`` below 1.

    References:
        Amsel et al. (2025), "The Polar Express: optimal matrix sign methods and their application
        to the Muon algorithm", arXiv 2505.16932.
    """
    if not 0 < smallest < 1 or count < 1 or safety < 1:
        raise NewtonSchulzError(
            "expected 0 < smallest < 1, count >= 1 and safety >= 1, got "
            f"{smallest!r}, {count!r} and {safety!r}"
        )
    low, high, rounds = smallest, 1.0, list[Round]()
    for index in range(count):
        a, b, c = _nearest_to_one(low, high)
        low, high = _extremes((a, b, c), low, high)
        stretch = 1.0 if index == count - 1 else safety
        rounds.append((a / stretch, b / stretch**3, c / stretch**5))
    return tuple(rounds)


def _nearest_to_one(low: float, high: float) -> Round:
    """The odd polynomial of degree five with the least largest distance to 1 (Remez exchange)."""
    if high - low < 1e-6 * high:  # too narrow for four points; the limit, scaled to its middle
        middle = (low + high) / 2
        a, b, c = CUBIC
        return a / middle, b / middle**3, c / middle**5
    a, b, c = CUBIC
    points = np.array([low, 0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high, high])
    error = 0.0
    for _ in range(100):
        signs = np.array([1.0, -1.0, 1.0, -1.0])
        system = np.stack([points, points**3, points**5, signs], axis=1)
        a, b, c, new = map(float, np.linalg.solve(system, np.ones(4)))
        # The inner extremes, where a + 3 b x^2 + 5 c x^4 vanishes.
        root = np.sqrt(max(9 * b * b - 20 * a * c, 0.0))
        inner = np.sqrt(np.sort(np.array([-3 * b - root, -3 * b + root]) / (10 * c)))
        points = np.array([low, inner[0], inner[1], high])
        if abs(abs(new) - error) <= 1e-14:
            break
        error = abs(new)
    return a, b, c


def _extremes(numbers: Round, low: float, high: float) -> tuple[float, float]:
    """The least and the largest value on the interval: both ends of the equal oscillation."""
    a, b, c = numbers
    least = a * low + b * low**3 + c * low**5
    return least, 2.0 - least
