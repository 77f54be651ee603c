"""DeepZero: train with values only, by differences along a sparse set of coordinates."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError, hyper
from anyorder.methods._coordinates import divided, drawn, layer_shares, moved
from anyorder.methods._features import Features, blocks_of
from anyorder.optimizer import Optimizer
from anyorder.optimizer.options import same_in_all_groups
from anyorder.optimizer.record import number
from anyorder.oracle import Oracle
from anyorder.oracle.gradients import NonFiniteError, SkipStep, refuse
from anyorder.points.directions import Dense, Shift
from anyorder.rules.descent import HEAVY_BALL


class DeepZero(Optimizer):
    r"""Zeroth-order SGD with momentum, from finite differences along sparse random coordinates.

    With the active set :math:`S` of coordinates :math:`i` and unit vectors :math:`e_i`:

    .. math::
        \hat g_i = \frac{f(x + \epsilon e_i) - f(x)}{\epsilon} \; (i \in S), \qquad
        \hat g_i = 0 \; (i \notin S),

    followed by heavy-ball SGD. ``density`` is the share of active coordinates among all matrices
    and kernels; vectors (biases, norms) are always active as a whole. The set is drawn anew every
    ``redraw`` steps, with a share for each layer:

    - ``ratios="magnitude"``: the shares of the largest magnitudes of the scores
      :math:`-x \odot Hg`, as in the authors' code. :math:`Hg` is estimated once, from
      ``score_directions`` Gaussian directions at :math:`x` and at :math:`x + \epsilon \hat g`
      (ZO-GraSP);
    - ``ratios="signed"``: the shares of the smallest scores, which GraSP keeps;
    - ``ratios="uniform"``: the same share for every layer, without scores.

    **Feature reuse.** For a coordinate in a later block of the model, the outputs of the blocks
    before it are those of :math:`f(x)` and are not computed again. Blocks are the children of an
    ``nn.Sequential``, or those given as ``blocks``. Otherwise, or if a block does not run exactly
    once per evaluation, every value is a whole forward pass; ``explain`` says which.

    **Several processes** (``process_group``) each evaluate a part of the coordinates, balanced by
    the measured cost of their blocks, and exchange 8 bytes per coordinate. Their weights stay equal
    bit for bit. Give all of them the same batch.

    State: a momentum buffer. Oracle calls per step: ``len(S) + 1`` values, over all processes; the
    first step also ``2 * score_directions + 1`` for the scores. The returned loss is :math:`f(x)`.
    Batch norm in training mode uses the statistics of each perturbed batch, and its running
    statistics change as in one evaluation of :math:`f(x)`. All evaluations use the same dropout
    masks.

    Departures from the paper's code: weights are restored from a saved value and so never drift;
    random gradient estimates are divided by ``eps`` and use the same directions at both points; at
    least one coordinate of each layer is active. A step of the difference that rounding changes is
    divided by what was really added.

    Args:
        params: a module, for feature reuse; or parameters, as for all methods.
        blocks: modules that run one after the other, each once per evaluation.
        options: settings of the method and common settings of all methods.

    Example:
        >>> import torch
        >>> from anyorder.methods.deepzero import DeepZero
        >>> layers = torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)
        >>> model = torch.nn.Sequential(*layers)
        >>> optimizer = DeepZero(model, density=0.5, ratios="uniform")
        >>> loss = optimizer.step(lambda: (model(torch.ones(3, 2)) ** 2).mean())
        >>> optimizer.calls.values  # 4 + 2 of the matrices, 4 + 1 of the biases, and f(x)
        12

    References:
        Chen et al. (2024), "DeepZero: Scaling up Zeroth-Order Optimization for Deep Model
        Training", arXiv 2310.02025; Wang et al. (2020), "Picking Winning Tickets Before Training by
        Preserving Gradient Flow" (GraSP).
    """

    order = 0
    needs = frozenset({"value"})
    rule = HEAVY_BALL

    lr: float = replace(HEAVY_BALL.hypers["lr"], default=0.1)
    momentum: float = replace(HEAVY_BALL.hypers["momentum"], default=0.9)
    dampening: float = HEAVY_BALL.hypers["dampening"]
    weight_decay: float = replace(HEAVY_BALL.hypers["weight_decay"], default=5e-4)
    decoupled_weight_decay: bool = hyper(
        False, doc="decoupled weight decay instead of L2 (added to the gradient)"
    )
    nesterov: bool = HEAVY_BALL.hypers["nesterov"]
    eps: float = hyper(5e-3, gt=0, unit="parameter", doc="size of the differences")
    density: float = hyper(0.1, gt=0, le=1, doc="share of active coordinates of matrices")
    redraw: int = hyper(100, ge=1, doc="steps after which other coordinates are drawn")
    ratios: str = hyper(
        "magnitude",
        choices=("magnitude", "signed", "uniform"),
        doc="how the shares of layers follow from scores",
    )
    score_directions: int = hyper(192, ge=1, doc="random directions for the scores")

    def __init__(
        self, params: Any, *, blocks: Sequence[nn.Module] | None = None, **options: Any
    ) -> None:
        module = params if isinstance(params, nn.Module) else None
        self._features = Features(blocks_of(module, blocks))
        self._shares: dict[str, float] = {}
        self._plan: Any = None
        self._first: int | None = None  # the step of the first plan
        super().__init__(params, **options)

    def check_group(self, group: dict[str, Any]) -> None:
        """Check what all groups share, and Nesterov's conditions."""
        names = ("eps", "density", "redraw", "ratios", "score_directions")
        same_in_all_groups(names, group, self.param_groups, "one set of coordinates is drawn")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise HyperError("nesterov: expected momentum > 0 and dampening = 0 beside it")

    def note(self, name: str, param: Tensor) -> str:
        """How many coordinates are active, and what is computed for them."""
        count = len(self._active(name, param)) if param.numel() else 0
        words = self._features.why_not
        if not words:
            holds = (any(param is p for p in b.parameters()) for b in self._features.blocks)
            index = next((i for i, held in enumerate(holds) if held), 0)
            words = f"computed from block {index} on"
        else:
            words = f"whole forward passes: {words}"
        return f"{count} coordinates, {words}"

    # A step --------------------------------------------------------------------------------

    def update(self, oracle: Oracle) -> Tensor:
        """Evaluate the base point and the coordinates of this process, exchange, and descend."""
        failed: SkipStep | NonFiniteError | None = None
        message, here, params = b"", oracle.local, self.named_params()
        base = torch.full((), float("nan"))
        try:
            with self._features.recording():
                base = here.value()
            if self._stale(params):
                if not self._shares and self.density < 1.0 and self.ratios != "uniform":
                    self._shares = self._scored(here, params, base)
                message = self._packed(params)
        except (SkipStep, NonFiniteError) as error:
            failed = error
        if self._stale(params):
            self._make_plan(params, self._exchanged(oracle, message, failed)[0])
        _, places, costs = self._plan
        rank, size = oracle.place
        mine = divided(costs, size)[rank]
        try:
            if failed is None:
                message = self._measured(here, params, base, places[mine.start : mine.stop])
        except (SkipStep, NonFiniteError) as error:
            failed = error
        messages = self._exchanged(oracle, message, failed)
        slopes = [x for m in messages for x in struct.unpack(f"<{(len(m) - 1) // 8}d", m[1:])]
        self.descend(_scattered(params, places, slopes))
        return base

    def _stale(self, params: Mapping[str, Tensor]) -> bool:
        return self._plan is None or self._plan[0] != self._key(params)

    def _key(self, params: Mapping[str, Tensor]) -> Any:
        shapes = tuple((name, tuple(param.shape)) for name, param in params.items())
        # Costs of the first step are those of cold caches. All processes agree about steps.
        warm = self._first is not None and self.steps > self._first
        return self.steps // self.redraw, warm, shapes

    def _active(self, name: str, param: Tensor) -> list[int]:
        share = self._shares.get(name, self.density) if param.ndim > 1 else 1.0
        return drawn(self.seed, self.steps // self.redraw, name, param.numel(), share)

    def _packed(self, params: Mapping[str, Tensor]) -> bytes:
        """Layer shares and costs of this process; those of rank 0 are used by all."""
        shares = [self._shares.get(name, self.density) for name in params]
        costs = [self._features.cost(self._features.owner(p)) for p in params.values()]
        return b"+" + struct.pack(f"<{2 * len(params)}d", *shares, *costs)

    def _make_plan(self, params: Mapping[str, Tensor], message: bytes) -> None:
        self._first = self.steps if self._first is None else self._first
        numbers = struct.unpack(f"<{2 * len(params)}d", message[1:])
        shares, costs = numbers[: len(params)], numbers[len(params) :]
        if self._shares or any(share != self.density for share in shares):
            self._shares = dict(zip(params, shares, strict=True))
        places = [(name, i) for name, param in params.items() for i in self._active(name, param)]
        cost = dict(zip(params, costs, strict=True))
        self._plan = self._key(params), places, [cost[name] for name, _ in places]

    def _measured(
        self,
        oracle: Oracle,
        params: Mapping[str, Tensor],
        base: Tensor,
        places: Sequence[tuple[str, int]],
    ) -> bytes:
        """Return the slope along each coordinate of this process."""
        owners = {name: self._features.owner(param) for name, param in params.items()}
        slopes: list[float] = []
        for name, index in places:
            with moved(params[name], index, self.eps) as step, self._features.reusing(owners[name]):
                value = oracle.value()
            slopes.append((value.item() - base.item()) / step if step else 0.0)
        return b"+" + struct.pack(f"<{len(slopes)}d", *slopes)

    def _exchanged(
        self, oracle: Oracle, message: bytes, failed: SkipStep | NonFiniteError | None
    ) -> list[bytes]:
        """Exchange messages; if one process has failed, all stop before anything is changed."""
        messages = oracle.exchange(b"" if failed is not None else message)
        if failed is not None:
            raise failed
        if not all(messages):
            refuse(self.nonfinite, "the loss is not finite in another process")
        return messages

    # Scores --------------------------------------------------------------------------------

    def _scored(
        self, oracle: Oracle, params: Mapping[str, Tensor], base: Tensor
    ) -> dict[str, float]:
        """Return the shares of layers by ZO-GraSP."""
        matrices = {name: param for name, param in params.items() if param.ndim > 1}
        if not matrices:
            return {}
        product = self._curvature(oracle, params, base)
        scores = {name: -param.detach() * product[name] for name, param in matrices.items()}
        return layer_shares(scores, self.density, signed=self.ratios == "signed")

    def _curvature(
        self, oracle: Oracle, params: Mapping[str, Tensor], base: Tensor
    ) -> dict[str, Tensor]:
        """Estimate the Hessian times the gradient estimate, by differences of differences."""
        count, eps = self.score_directions, self.eps
        drawn_ = [self.direction(index) for index in range(count)]
        at_base = [oracle.values([Shift(eps, z)])[0].item() - base.item() for z in drawn_]
        grad = self._combined(params, [d / eps / count for d in at_base])
        there = oracle.values([Shift(eps, Dense(grad))])[0].item()
        ahead: list[float] = []
        for z in drawn_:
            point = {name: g.clone() for name, g in grad.items()}
            z.add_all_(point, 1.0, self.engine)
            ahead.append(oracle.values([Shift(eps, Dense(point))])[0].item() - there)
        pairs = zip(ahead, at_base, strict=True)
        return self._combined(params, [(a - b) / eps**2 / count for a, b in pairs])

    def _combined(
        self, params: Mapping[str, Tensor], weights: Sequence[float]
    ) -> dict[str, Tensor]:
        """Return the sum of the step's first directions with these weights."""
        total = {
            name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
            for name, p in params.items()
        }
        for index, weight in enumerate(weights):
            self.direction(index).add_all_(total, weight, self.engine)
        return total

    # Checkpoints ---------------------------------------------------------------------------

    def extra_state(self) -> dict[str, Any]:
        """The shares of layers."""
        return {"shares": dict(self._shares)}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Load the shares of layers."""
        shares = {
            str(name): number(extra, share, "shares", least=0.0, most=1.0)
            for name, share in extra["shares"].items()
        }
        self._shares, self._plan, self._first = shares, None, None

    def __getstate__(self) -> dict[str, Any]:
        """Without outputs of the last step, which belong to its batch."""
        return {**super().__getstate__(), "_features": Features(self._features.blocks)}


def _scattered(
    params: Mapping[str, Tensor], places: Sequence[tuple[str, int]], slopes: Sequence[float]
) -> list[Tensor | None]:
    """Return a dense estimate for each parameter, zero where nothing was measured."""
    indices: dict[str, list[int]] = {name: [] for name in params}
    found: dict[str, list[float]] = {name: [] for name in params}
    for (name, index), slope in zip(places, slopes, strict=True):
        indices[name].append(index)
        found[name].append(slope)
    made: list[Tensor | None] = []
    for name, param in params.items():
        wide = torch.promote_types(param.dtype, torch.float32)
        dense = torch.zeros(param.numel(), dtype=wide, device=param.device)
        where = torch.tensor(indices[name], dtype=torch.int64, device=param.device)
        dense[where] = torch.tensor(found[name], dtype=wide, device=param.device)
        made.append(dense.view(param.shape))
    return made
