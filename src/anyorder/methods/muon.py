"""Muon: orthogonalised momentum for hidden matrices, and AdamW for all other parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from anyorder.hyper import hyper
from anyorder.linalg.newton_schulz import JORDAN, Round, minimax_rounds, newton_schulz_each
from anyorder.methods._by_role import ADAMW, ADAMW_RULE, ByRole
from anyorder.model.roles import Role, as_matrices, from_matrices
from anyorder.model.sharding import full, shard_of
from anyorder.oracle import Oracle
from anyorder.rules import Rule
from anyorder.rules.descent import AVERAGE, DESCENT

MUON = "muon"
_PRECISIONS = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}


class Muon(ByRole):
    r"""Muon: momentum orthogonalised by Newton-Schulz iterations, for hidden matrices.

    With gradient :math:`G_t` of a matrix of :math:`r` rows and :math:`c` columns,

    .. math::
        M_t &= \mu M_{t-1} + (1 - \mu) G_t \\
        N_t &= \mu M_t + (1 - \mu) G_t \quad \text{(Nesterov; else } M_t \text{)} \\
        W_t &= (1 - \eta \lambda) W_{t-1} - \eta\, s\, \mathrm{NS}(N_t), \qquad
        \mathrm{NS}(U \Sigma V^\top) \approx U V^\top

    where :math:`s = \sqrt{\max(1, r/c)}` (``adjust_lr="original"``) or :math:`0.2 \sqrt{\max(r,
    c)}` (``match_rms_adamw``, which allows AdamW's learning rate and weight decay).

    Convolution kernels are flattened to (outputs, everything else). Packed projections of known
    modules (``nn.MultiheadAttention``, recurrent layers) are orthogonalised separately. Embeddings,
    the output layer and vectors use AdamW with the learning rate ``adamw_lr``: by default 0.015 lr
    with ``original`` (Jordan's 3e-4 and 0.02), and lr with ``match_rms_adamw``. A learning rate
    schedule scales both. Pass the model, so that the roles of parameters are known; :meth:`explain`
    prints the rule of each parameter.

    Matrices of equal shape are orthogonalised in one batch. ``coefficients="jordan"`` are the usual
    ones, which map singular values above a hundredth of the Frobenius norm to between 0.68 and
    1.14. ``minimax`` are optimal for the number of rounds
    (:func:`~anyorder.linalg.newton_schulz.minimax_rounds`): six rounds map singular values above a
    thousandth to within 0.4 % of one. ``precision="auto"`` uses bfloat16 for the products on CUDA
    and float32 elsewhere. For sharded parameters every process gathers and orthogonalises the whole
    matrix.

    State: one buffer for each hidden matrix, two for all other parameters.

    Oracle calls per step: 1 gradient. Five rounds on a matrix of shorter side m and longer side n
    cost :math:`20 m^2 n + 10 m^3` operations, compared with :math:`6 b m n` for forward and
    backward on b tokens: an overhead of at most :math:`5 m / b`.

    Example:
        >>> import torch
        >>> from anyorder.methods.muon import Muon
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> optimizer = Muon(model, lr=0.02)
        >>> x, y = torch.ones(5, 3), torch.zeros(5, 2)
        >>> loss = optimizer.step(lambda: nn.functional.mse_loss(model(x), y))
        >>> print(optimizer.explain().splitlines()[-1].strip())
        2.bias  2 float32  vector: adamw (bias of Linear)

    Departures from the original: momentum is an average (as in later versions and torch.optim), so
    it has the scale of a gradient, to which the rounds are invariant; the Frobenius norm is
    computed in float32.

    References:
        Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks",
        kellerjordan.github.io/posts/muon; Liu et al. (2025), "Muon is scalable for LLM training",
        arXiv 2502.16982, for ``match_rms_adamw``.
    """

    order = 1
    rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {
        MUON: (AVERAGE, DESCENT),
        ADAMW: (ADAMW_RULE,),
    }
    rule_by_role: ClassVar[Mapping[Role, str]] = {
        "matrix": MUON,
        "convolution": MUON,
        "embedding": ADAMW,
        "head": ADAMW,
        "tied": ADAMW,
        "vector": ADAMW,
    }

    lr: float = hyper(
        0.02,
        ge=0,
        search="log",
        low=2e-4,
        high=2.0,
        unit="parameter",
        doc="learning rate of matrices",
    )
    momentum: float = hyper(
        0.95, ge=0, lt=1, search="linear", low=0.85, high=0.98, doc="momentum factor"
    )
    nesterov: bool = hyper(True, doc="use Nesterov momentum")
    adjust_lr: str = hyper(
        "original",
        choices=("original", "match_rms_adamw"),
        doc="how the step size depends on the shape of a matrix",
    )
    rounds: int = hyper(5, ge=1, le=100, doc="Newton-Schulz rounds")
    coefficients: str = hyper(
        "jordan", choices=("jordan", "minimax"), doc="coefficients of the Newton-Schulz rounds"
    )
    precision: str = hyper(
        "auto", choices=tuple(_PRECISIONS), doc="precision of the Newton-Schulz products"
    )
    adamw_betas: tuple[float, float] = hyper(
        (0.9, 0.95), ge=0, lt=1, doc="AdamW's decay rates of the moments"
    )
    adamw_eps: float = hyper(1e-10, ge=0, unit="gradient", doc="added to AdamW's denominator")
    weight_decay: float = hyper(
        0.0, ge=0, search="log", low=1e-4, high=1.0, unit="1 / step size", doc="weight decay"
    )

    def adamw_share(self, group: Mapping[str, Any]) -> float:
        """Jordan's ratio, or 1 if the sizes of updates are matched."""
        return 1.0 if group["adjust_lr"] == "match_rms_adamw" else 0.015

    def update(self, oracle: Oracle) -> Tensor:
        """Compute one gradient, then update."""
        loss, grads = oracle.grad()
        self.apply(AVERAGE, grads, label=MUON)
        self.apply(DESCENT, self._directions(grads), label=MUON)
        self.apply_adamw(grads)
        return loss

    def _directions(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        """Orthogonalised momenta times their factor, ``None`` for what is not Muon's.

        Matrices with equal settings are one call, whatever their groups.
        """
        params, momenta = self.named_params(), self.buffer("momentum_buffer")
        given = dict(zip(params, grads, strict=True))
        calls: dict[tuple[tuple[Round, ...], str], list[str]] = {}
        matrices: dict[str, Tensor] = {}
        factors: dict[str, float] = {}
        for group in self.param_groups:
            settings = (_rounds(group["coefficients"], group["rounds"]), group["precision"])
            for name, label in zip(group["param_names"], self.labels(group), strict=True):
                grad = given.get(name)
                if grad is None or label != MUON:
                    continue
                look = _ahead(momenta[name], grad, group) if group["nesterov"] else momenta[name]
                matrices[name] = as_matrices(full(look), self.assignment(name))
                factors[name] = factor(group["adjust_lr"], *matrices[name].shape[-2:])
                calls.setdefault(settings, []).append(name)
        done: dict[str, Tensor] = {}
        for (rounds, precision), names in calls.items():
            results = newton_schulz_each(
                [matrices[n] for n in names], rounds, dtype=_PRECISIONS[precision]
            )
            for name, result in zip(names, results, strict=True):
                whole = from_matrices(result * factors[name], params[name], self.assignment(name))
                done[name] = shard_of(whole, params[name])
        return [done.get(name) for name in params]


def _rounds(coefficients: str, count: int) -> tuple[Round, ...]:
    return JORDAN[:1] * count if coefficients == "jordan" else minimax_rounds(count=count)


def _ahead(momentum: Tensor, grad: Tensor, group: Mapping[str, Any]) -> Tensor:
    """Nesterov momentum; the momentum already contains this gradient."""
    keep = group["momentum"]
    return momentum * keep + grad.to(momentum.dtype) * (1.0 - keep)


def factor(adjust_lr: str, rows: int, columns: int) -> float:
    """The factor of the step size of a matrix by its shape."""
    if adjust_lr == "original":
        return math.sqrt(max(1.0, rows / max(columns, 1)))
    return 0.2 * math.sqrt(max(rows, columns))
