r"""A black box as a layer: backward estimates a vector-Jacobian product from function values.

For inputs :math:`x_i` (one row per sample), outputs :math:`F(x_i)` and the gradient :math:`v_i` of
the loss in these outputs, the layer returns an estimate of :math:`J_F(x_i)^\top v_i`. With
:math:`s_{ij}` the difference quotient of :math:`v_i^\top F` at :math:`x_i` along direction
:math:`u_{ij}`:

==============  ==================================================  ========================
law             estimate for sample i                               its directions
==============  ==================================================  ========================
``coordinate``  :math:`\sum_{j=1}^{d} s_{ij} e_j`                   all unit vectors
``sphere``      :math:`\frac{d}{q} \sum_{j=1}^{q} s_{ij} u_{ij}`    uniform on the unit sphere
``normal``      :math:`\frac{1}{q} \sum_{j=1}^{q} s_{ij} u_{ij}`    standard normal
``rademacher``  :math:`\frac{1}{q} \sum_{j=1}^{q} s_{ij} u_{ij}`    signs
==============  ==================================================  ========================

The weights :math:`v_i` are exact, since they come from backpropagation through what follows the
layer. The queries of one sample thus serve all outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from anyorder.engine import Engine
from anyorder.errors import AnyOrderError
from anyorder.hyper import Hyper, hyper
from anyorder.oracle.gradients import POLICIES, Nonfinite, NonFiniteError
from anyorder.oracle.ledger import Budget, Calls
from anyorder.points.directions import BLOCK, Law, Seeded

BoxLaw = Literal["coordinate", "sphere", "normal", "rademacher"]
Difference = Literal["central", "forward"]
LAWS: tuple[BoxLaw, ...] = ("coordinate", "sphere", "normal", "rademacher")
DIFFERENCES: tuple[Difference, ...] = ("central", "forward")
_SETTINGS: dict[str, Hyper] = {
    "law": hyper("coordinate", choices=LAWS),
    "directions": hyper(1, ge=1),
    "difference": hyper("central", choices=DIFFERENCES),
    "mu": hyper(1e-3, gt=0),
    "rows": hyper(4096, ge=1),
    "seed": hyper(0),
    "nonfinite": hyper("raise", choices=POLICIES),
}


class BlackBoxError(AnyOrderError, ValueError):
    """A setting, an input or an answer of a black box that does not fit."""


class BlackBox(nn.Module):
    """A layer around any callable from a batch of inputs to outputs or to losses per sample.

    ``layer(inputs, *others)`` calls ``function(inputs, *others)``. Only ``inputs`` are
    differentiated. ``others`` (labels, for example) have one row per sample and are repeated with
    the sample in every query. The function never receives gradients, graphs or the caller's
    own tensors.

    Queries per sample: 1 in forward; in backward ``2 * d`` for coordinates with d numbers per
    sample, ``2 * directions`` otherwise; half of that with ``difference="forward"``, which uses the
    outputs of forward again. All are counted as values in ``calls``. Without a gradient (under
    ``no_grad`` or if ``inputs`` need none) only forward is evaluated.

    Directions are a pure function of ``seed``, the step (how many differentiable forward passes
    this layer has made), the sample's position in the batch, and the direction's number. They do
    not depend on ``rows``. Step and ledger are part of ``state_dict()``, so a resumed run continues
    with the same directions.

    Inputs in float16 or bfloat16 are perturbed in float32, and the function receives float32.

    Args:
        function: takes a tensor, or an array with ``numpy=True``, of shape ``(n, ...)``, and
            returns n outputs, shape ``(n, ...)``, or n losses, shape ``(n,)``: a tensor, an array
            or a nested list of real numbers. It must treat samples independently.
        law: ``coordinate``, ``sphere``, ``normal`` or ``rademacher``.
        directions: random directions per sample; for all laws except ``coordinate``.
        difference: ``central`` or ``forward``.
        mu: length of a step along a direction, in units of the inputs.
        rows: most samples per call of the function, which limits the memory of a call.
        seed: seed of the directions.
        numpy: whether the function takes arrays.
        nonfinite: what to do about a NaN or infinite answer. ``raise`` raises an error; ``skip``
            takes its differences as zero and counts them in ``calls.skipped``; ``ignore`` uses it.
        budget: limits on evaluations, such as ``"10_000values"``; checked before the first
            evaluation of each pass.

    Raises:
        HyperError: a setting is out of its range.
        BlackBoxError: settings, inputs or answers that do not fit.
        NonFiniteError: an answer is not finite, under ``nonfinite="raise"``.
        BudgetExhausted: the next pass would exceed the budget; nothing was evaluated.

    Example:
        >>> import numpy as np, torch
        >>> from anyorder.nn import BlackBox
        >>> layer = BlackBox(lambda x: np.sin(x).sum(1), numpy=True)
        >>> x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        >>> layer(x).sum().backward()
        >>> x.grad.round(decimals=4).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
        >>> layer.calls.values  # forward: 2 samples; backward: 2 samples, 3 coordinates, 2 sides
        14

    References:
        Zhang et al. (2022), "How to Robustify Black-Box ML Models? A Zeroth-Order Optimization
        Perspective", arXiv 2203.14195. Its code averages over coordinates instead of summing.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        law: BoxLaw = "coordinate",
        directions: int | None = None,
        difference: Difference = "central",
        mu: float = 1e-3,
        rows: int = 4096,
        seed: int = 0,
        numpy: bool = False,
        nonfinite: Nonfinite = "raise",
        budget: Budget | str | None = None,
    ) -> None:
        super().__init__()
        if not callable(function):
            raise BlackBoxError(
                "function: expected a callable from a batch to outputs, got "
                f"{type(function).__name__}"
            )
        if law == "coordinate" and directions is not None:
            raise BlackBoxError(
                f"directions: the law coordinate uses all coordinates, got {directions}; leave it "
                "out, or write law='sphere'"
            )
        for name, value in (("law", law), ("difference", difference), ("mu", mu), ("rows", rows),
                            ("seed", seed), ("nonfinite", nonfinite)):  # fmt: skip
            _SETTINGS[name].check(name, value)
        if law != "coordinate":
            _SETTINGS["directions"].check("directions", directions)
        self.function = function
        self.law: BoxLaw = law
        self.directions, self.difference = directions, difference
        self.mu, self.rows, self.seed, self.numpy = float(mu), rows, seed, numpy
        self.nonfinite: Nonfinite = nonfinite
        self.budget, self.calls, self.step = Budget.of(budget), Calls(), 0

    def forward(self, inputs: Tensor, *others: Any) -> Tensor:
        """Evaluate the black box.

        Args:
            inputs: shape ``(n, ...)``, real floating point.
            others: tensors, arrays or lists with n rows each, not differentiated.

        Returns:
            Its outputs, shape ``(n, ...)``, on the device of the inputs.
        """
        rows = _checked_inputs(inputs, others)
        step = self.step
        if torch.is_grad_enabled() and inputs.requires_grad:
            self.step += 1
        return _opaque(inputs, self, step, rows)

    def extra_repr(self) -> str:
        """Describe the settings."""
        count = "" if self.directions is None else f", directions={self.directions}"
        return f"law={self.law!r}{count}, difference={self.difference!r}, mu={self.mu:g}"

    def get_extra_state(self) -> dict[str, Any]:
        """Return step and ledger for ``state_dict()``."""
        return {"step": self.step, "calls": self.calls.to_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Load what :meth:`get_extra_state` returned."""
        calls = Calls()
        calls.update(state["calls"])
        self.step, self.calls = int(state["step"]), calls

    # Asking --------------------------------------------------------------------------------

    def _evaluate(self, inputs: Tensor, others: tuple[Any, ...]) -> Tensor:
        """Return the outputs at the inputs, in calls of at most ``rows`` samples."""
        self._check_budget(len(inputs))
        points = inputs.detach().to(_wide(inputs.dtype))
        parts = [
            self._ask(points[i : i + self.rows], tuple(o[i : i + self.rows] for o in others))
            for i in range(0, max(1, len(points)), self.rows)
        ]
        shapes = {tuple(part.shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise BlackBoxError(f"expected outputs of one shape, got {sorted(shapes)}")
        outputs = torch.cat(parts)
        if self.nonfinite == "raise" and not bool(torch.isfinite(outputs).all()):
            wrong = (~torch.isfinite(_rows(outputs))).any(1).nonzero().flatten().tolist()
            raise NonFiniteError(
                f"the black box returned NaN or Inf for the inputs of samples {wrong[:5]}; see "
                "what it does there, or write nonfinite='skip'"
            )
        return outputs

    def _ask(self, points: Tensor, others: tuple[Any, ...]) -> Tensor:
        """Call the function once, with copies, and return a checked copy of its answer."""
        count = len(points)
        given: Any = points.detach().clone()
        if self.numpy:
            given = given.cpu().numpy()
            others = tuple(o.cpu().numpy() if isinstance(o, Tensor) else o for o in others)
        with torch.no_grad():
            try:
                answer = self.function(given, *others)
            except Exception as error:
                error.add_note(
                    f"raised by the black box when asked for {count} samples; "
                    f"{self.calls.values} were answered before"
                )
                raise
            outputs = _as_tensor(answer, points)
        self.calls.values += count
        if outputs.ndim == 0 or len(outputs) != count:
            raise BlackBoxError(
                f"expected one output or loss per sample, shape ({count}, ...), got "
                f"{tuple(outputs.shape)}; do not average over the batch"
            )
        return outputs

    def _check_budget(self, queries: int) -> None:
        if self.budget is not None:
            self.budget.check(self.calls, {"values": queries})

    # Differences ---------------------------------------------------------------------------

    def _product(
        self, inputs: Tensor, outputs: Tensor, weights: Tensor, step: int, others: tuple[Any, ...]
    ) -> Tensor:
        """Estimate the vector-Jacobian product; shapes of inputs, outputs, outputs."""
        points = _rows(inputs.detach().to(_wide(inputs.dtype)))
        count, size = points.shape
        each = size if self.directions is None else self.directions
        sides = 2 if self.difference == "central" else 1
        self._check_budget(sides * count * each)
        self._refuse_lost_steps(points)
        result = torch.zeros_like(points)
        stride = max(1, self.rows // sides)
        for start in range(0, count * each, stride):
            pairs = torch.arange(start, min(start + stride, count * each), device=points.device)
            owner, number = pairs // each, pairs % each
            z = self._directions(step, owner, number, points)
            shifts = torch.cat([self.mu * z, -self.mu * z][:sides])
            asked = owner.repeat(sides)
            answers = self._ask((points[asked] + shifts).view(-1, *inputs.shape[1:]),
                                _taken(others, asked))  # fmt: skip
            ahead, behind = answers.chunk(2) if sides == 2 else (answers, outputs[owner])
            slopes = self._slopes(ahead, behind, weights[owner], owner)
            result.index_add_(0, owner, slopes.to(result.dtype)[:, None] * z)
        scale = {"coordinate": 1.0, "sphere": size / each}.get(self.law, 1.0 / each)
        return (result * scale).view(inputs.shape).to(inputs.dtype)

    def _slopes(self, ahead: Tensor, behind: Tensor, weights: Tensor, owner: Tensor) -> Tensor:
        """Difference quotients of the weighted outputs, one for each pair of answers."""
        if ahead.shape != weights.shape:
            raise BlackBoxError(
                f"expected outputs of shape {tuple(weights.shape[1:])} per sample as in forward, "
                f"got {tuple(ahead.shape[1:])}"
            )
        wide = _wide(ahead.dtype)
        difference = _rows(ahead.to(wide) - behind.to(wide))
        if self.nonfinite != "ignore":
            wrong = ~torch.isfinite(difference).all(1)
            if self.nonfinite == "raise" and bool(wrong.any()):
                raise NonFiniteError(
                    "the black box returned NaN or Inf near the inputs of samples "
                    f"{owner[wrong].unique().tolist()[:5]}; lower mu, or write nonfinite='skip'"
                )
            self.calls.skipped += int(wrong.sum())
            difference = torch.where(wrong[:, None], 0.0, difference)
        distance = self.mu * (2 if self.difference == "central" else 1)
        return (difference * _rows(weights.to(wide))).sum(1) / distance

    def _directions(self, step: int, owner: Tensor, number: Tensor, points: Tensor) -> Tensor:
        """Directions for pairs of a sample and a number, shape ``(pairs, d)``."""
        size = points.shape[1]
        if self.law == "coordinate":
            z = torch.zeros(len(owner), size, dtype=points.dtype, device=points.device)
            return z.scatter_(1, number[:, None], 1.0)
        law: Law = "rademacher" if self.law == "rademacher" else "normal"
        seeded, like = Seeded(self.seed, step, 0, law), points[0].float()
        names = [f"{i}/{j}" for i, j in zip(owner.tolist(), number.tolist(), strict=True)]
        if size <= BLOCK:
            drawn = seeded.many(dict.fromkeys(names, like), _ENGINE)
        else:
            drawn = {name: seeded.tensor(name, like, _ENGINE) for name in names}
        z = torch.stack([drawn[name] for name in names]).to(points.dtype)
        return z / z.norm(dim=1, keepdim=True) if self.law == "sphere" else z

    def _refuse_lost_steps(self, points: Tensor) -> None:
        """Raise an error if a step is smaller than the spacing of numbers at the inputs."""
        largest = float(points.abs().max()) if points.numel() else 0.0
        spacing = largest * torch.finfo(points.dtype).eps
        if self.mu <= spacing:
            raise BlackBoxError(
                f"mu: a step of {self.mu:g} is lost at inputs of size {largest:.3g} in "
                f"{points.dtype}; expected more than {spacing:.1g}. Use a larger mu or float64"
            )


_ENGINE = Engine("eager")


class _ZerothOrder(torch.autograd.Function):
    """Evaluates a box; its backward asks the box for the vector-Jacobian product."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, box: BlackBox, step: int, others: Any) -> Tensor:
        outputs = box._evaluate(inputs, others)  # pyright: ignore[reportPrivateUsage]
        ctx.box, ctx.step, ctx.others = box, step, others
        ctx.save_for_backward(inputs, outputs)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs, outputs = ctx.saved_tensors
        product = ctx.box._product(inputs, outputs, grads[0], ctx.step, ctx.others)
        return product, None, None, None


#: Evaluates a box with its derivative; a compiler must not look inside.
_opaque = cast("Callable[..., Tensor]", torch.compiler.disable(_ZerothOrder.apply))


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of points and differences."""
    return torch.promote_types(dtype, torch.float32)


def _rows(tensor: Tensor) -> Tensor:
    """One row per sample, shape ``(n, numbers per sample)``."""
    return tensor.reshape(len(tensor), math.prod(tensor.shape[1:]))


def _checked_inputs(inputs: Any, others: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return ``others``, one row per sample each, detached and copied."""
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim == 0:
        found = (
            f"{inputs.dtype} of shape {tuple(inputs.shape)}"
            if isinstance(inputs, Tensor)
            else type(inputs).__name__
        )
        raise BlackBoxError(
            f"inputs: expected a real tensor with one row per sample, got {found}; write "
            "torch.as_tensor(values, dtype=torch.float32)"
        )
    for place, other in enumerate(others):
        if isinstance(other, Tensor) and other.requires_grad:
            raise BlackBoxError(
                f"argument {place + 2} needs a gradient, but only the first one is differentiated; "
                "pass other.detach(), or concatenate it with the first"
            )
        if np.ndim(other) == 0 or len(other) != len(inputs):
            raise BlackBoxError(
                f"argument {place + 2}: expected {len(inputs)} rows, one per sample, got shape "
                f"{tuple(np.shape(other))}"
            )
    return tuple(o.clone() if isinstance(o, Tensor) else np.array(o) for o in others)


def _taken(others: tuple[Any, ...], owner: Tensor) -> tuple[Any, ...]:
    """The rows of these samples."""
    return tuple(
        o[owner.to(o.device)] if isinstance(o, Tensor) else o[owner.cpu().numpy()] for o in others
    )


def _as_tensor(answer: Any, points: Tensor) -> Tensor:
    """Return a copy of an answer as a floating-point tensor on the device of the points."""
    try:
        found = answer if isinstance(answer, Tensor) else torch.from_numpy(np.array(answer))
    except (TypeError, ValueError) as error:
        raise BlackBoxError(
            f"expected numbers from the black box, got {type(answer).__name__} ({error})"
        ) from error
    if found.is_complex():
        raise BlackBoxError(f"expected real numbers from the black box, got {found.dtype}")
    dtype = found.dtype if found.is_floating_point() else points.dtype
    return found.detach().to(points.device, dtype, copy=True)
