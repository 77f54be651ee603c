"""Polar factors of matrices by Newton-Schulz iterations, which use matrix products only.

A round maps every singular value :math:`s` to :math:`a s + b s^3 + c s^5`. With suitable
coefficients a few rounds bring all of them near 1 and keep the singular vectors, which yields the
orthogonal polar factor without an SVD.
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

#: Jordan's coefficients, the same for each of five rounds: as steep at 0 as possible, and therefore
#: not convergent. Singular values above 1% of the norm end between 0.68 and 1.14.
JORDAN: tuple[Round, ...] = ((3.4445, -4.7750, 2.0315),) * 5
#: The round that converges fastest once all singular values are near 1 (order three).
CUBIC: Round = (15 / 8, -10 / 8, 3 / 8)
#: Matrices are stacked up to this many elements.
BATCH = 1 << 26


class NewtonSchulzError(AnyOrderError, ValueError):
    """An argument that is not a matrix, or invalid rounds."""


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
        rounds: the coefficients ``(a, b, c)`` of each round.
        dtype: the precision of the products; by default bfloat16 on CUDA, elsewhere float32, and
            float64 for matrices in float64.
        eps: lower bound on the Frobenius norm used for scaling; a zero matrix stays zero.

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
    # The Frobenius norm bounds the largest singular value; it is computed in full precision.
    size = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    x = (x / size.clamp(min=eps)).to(dtype or _products(wide, matrices.device))
    with full_precision(x):
        for a, b, c in rounds:
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.mT if rows > columns else x
    return x.to(matrices.dtype).reshape(matrices.shape)


def _products(wide: torch.dtype, device: torch.device) -> torch.dtype:
    """The default precision of the products."""
    fast = device.type == "cuda" and wide is torch.float32
    return torch.bfloat16 if fast else wide


def newton_schulz_each(
    matrices: Sequence[Tensor],
    rounds: Sequence[Round] = JORDAN,
    *,
    dtype: torch.dtype | None = None,
) -> list[Tensor]:
    """Apply :func:`newton_schulz` to many matrices, batching those of equal shape and device.

    Args:
        matrices: shapes ``(..., rows, columns)``; all leading axes are batched as well.
        rounds: see :func:`newton_schulz`.
        dtype: see :func:`newton_schulz`.

    Returns:
        Tensors like ``matrices``, in the same order.
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
    """Reshape ``(..., rows, columns)`` to three axes, including empty ones."""
    return matrices.flatten(0, -3) if matrices.ndim > 2 else matrices.unsqueeze(0)


def _batches(indices: Sequence[int], matrices: Sequence[Tensor]) -> list[list[int]]:
    """Split the indices into runs of at most :data:`BATCH` elements, or of one matrix."""
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


# Coefficients of the rounds ----------------------------------------------------------------


@functools.cache
def minimax_rounds(
    smallest: float = 1e-3, count: int = 5, safety: float = 1.01
) -> tuple[Round, ...]:
    r"""Return the rounds that bring all singular values in ``[smallest, 1]`` closest to 1.

    Each round is the odd polynomial of degree five that best approximates 1 in the maximum norm on
    the image of the rounds before it; their composition is optimal among such compositions. From
    1e-3 five rounds leave errors up to 0.14 and six up to 0.004; five of Jordan's leave 0.53, and
    any number of them at least 0.32.

    Args:
        smallest: singular values below it stay below 1, above it they end near 1.
        count: number of rounds.
        safety: all rounds but the last assume singular values larger by this factor, so rounding in
            half precision does not push them out of the interval. 1 turns this off.

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
    """The minimax odd polynomial of degree five that approximates 1 (Remez exchange)."""
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
        # The interior extrema, where a + 3 b x^2 + 5 c x^4 vanishes.
        root = np.sqrt(max(9 * b * b - 20 * a * c, 0.0))
        inner = np.sqrt(np.sort(np.array([-3 * b - root, -3 * b + root]) / (10 * c)))
        points = np.array([low, inner[0], inner[1], high])
        if abs(abs(new) - error) <= 1e-14:
            break
        error = abs(new)
    return a, b, c


def _extremes(numbers: Round, low: float, high: float) -> tuple[float, float]:
    """The smallest and largest value on the interval: the ends of the equioscillation."""
    a, b, c = numbers
    least = a * low + b * low**3 + c * low**5
    return least, 2.0 - least
