"""Gradient descent, heavy ball, Nesterov and triple momentum as one recursion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from anyorder.hyper import HyperError, hyper
from anyorder.methods._acceleration import FORMS, Certificate, Constants, Form, constants
from anyorder.model.sharding import local, summed
from anyorder.optimizer import Optimizer
from anyorder.optimizer.record import CheckpointError, number, numbers
from anyorder.oracle import Oracle
from anyorder.rules import Rule

#: Length of a first step without L, relative to the norm of the parameters (at least 1), and its
#: minimum in rounding errors of the parameters.
PROBE, PROBE_ROUNDING = 1e-3, 8.0
#: A gradient with a norm above this fraction of the limit counts as clipped.
CLIPPED = 1.0 - 1e-5
#: Steps shorter than this many rounding errors of the parameters are not used for curvature.
ROUNDING = 4.0
#: If the record of gradient norms reaches this length, every other entry is dropped.
RECORD = 512


def accelerate_(
    param: Tensor,
    difference: Tensor,
    grad: Tensor,
    *,
    alpha: Tensor,
    beta: Tensor,
    back: Tensor,
    ahead: Tensor,
) -> None:
    """``y <- y - gamma d + (1 + gamma') d'`` with ``d' = beta d - alpha g``."""
    turned = difference * back
    difference.mul_(beta).sub_(grad * alpha)
    param.add_((difference * ahead).sub_(turned))


def take_move_(param: Tensor, move: Tensor, before: Tensor) -> None:
    """``s <- y - before``."""
    move.copy_(param - before)


ACCELERATE = Rule(accelerate_, buffers=("difference",))
TAKE_MOVE = Rule(take_move_, buffers=("move",), gradient=False, ends_step=False)


class Accelerated(Optimizer):
    r"""Classical accelerated methods as one family, with a certificate of convergence.

    .. math::
        y_k &= (1 + \gamma) \xi_k - \gamma \xi_{k-1}, \qquad \xi_{-1} = \xi_0 \\
        \xi_{k+1} &= (1 + \beta) \xi_k - \beta \xi_{k-1} - \eta \alpha \nabla f(y_k) \\
        x_k &= (1 + \delta) \xi_k - \delta \xi_{k-1}

    With curvatures between :math:`\mu` and :math:`L`, :math:`q = \sqrt{\mu / L}`,
    :math:`r = 1 - q`, and :math:`\rho` the asymptotic factor on the distance to the minimum per
    step, the methods are (other constants are zero)

    .. math::
        \text{gradient:} &\quad \alpha = \tfrac{2}{L + \mu},
            \quad \rho = \tfrac{L - \mu}{L + \mu} \\
        \text{heavy ball:} &\quad \alpha = \tfrac{4}{(\sqrt L + \sqrt\mu)^2},
            \ \beta = \left(\tfrac{1 - q}{1 + q}\right)^2, \quad \rho = \tfrac{1 - q}{1 + q} \\
        \text{nesterov:} &\quad \alpha = \tfrac1L, \ \beta = \gamma = \tfrac{1 - q}{1 + q},
            \quad \rho = \sqrt{1 - q} \\
        \text{triple momentum:} &\quad \alpha = \tfrac{1 + r}{L}, \ \beta = \tfrac{r^2}{2 - r},
            \ \gamma = \tfrac{r^2}{(1 + r)(2 - r)}, \ \delta = \tfrac{r^2}{1 - r^2},
            \quad \rho = 1 - q \\
        \text{nesterov convex:} &\quad \alpha = \tfrac1L, \ \beta_k = \gamma_k
            = \tfrac{t_k - 1}{t_{k+1}}, \quad f(x_k) - f^* \le \tfrac{2 L |x_0 - x^*|^2}{(k+1)^2}

    where :math:`t_1 = 1` and :math:`t_{k+1} = \frac12 (1 + \sqrt{1 + 4 t_k^2})`. The last one needs
    no :math:`\mu`. With ``restart`` its momentum is reset if a step increases the loss,
    :math:`\nabla f(y_k)^\top (x_{k+1} - x_k) > 0`: a heuristic that usually restores a linear
    rate. The rate of heavy ball only holds for quadratics. Only gradient descent decreases the loss
    at every step.

    During training the parameters hold :math:`y_k`. The point to evaluate is :math:`x_k`; use
    ``with optimizer.answer():``.

    **Unknown constants.** If ``mu`` or ``L`` is ``None``, it is estimated from the gradients: the
    last step :math:`s = y_k - y_{k-1}` has curvature
    :math:`s^\top (\nabla f(y_k) - \nabla f(y_{k-1})) / |s|^2`, which lies between :math:`\mu` and
    :math:`L`; the smallest so far is the estimate of :math:`\mu`, the largest that of :math:`L`.
    Curvatures that are not positive, clipped gradients, and steps close to the rounding error are
    ignored. Until there is an estimate, steps are probes along the gradient with 1/1000 of the norm
    of the parameters. The estimates bound :math:`\mu` from above and :math:`L` from below, so no
    rate is proved for them. They assume exact gradients of a fixed function: with mini-batches, set
    ``L``. Steps of gradient descent, heavy ball and triple momentum seldom reveal the smallest
    curvature, so estimate with ``nesterov`` or ``nesterov_convex``: on a quadratic with 200
    curvatures from 1 to 1,000, without ``mu`` and ``L``, these reach 1e-8 in 626 and 666 steps, the
    others in 2,400 to 7,300.

    State: one buffer per parameter, two if a constant is estimated. Oracle calls per step:
    1 gradient. Each step moves 20 bytes per float32 parameter and reads the gradient again for its
    norm, and with ``restart`` the buffer too.

    Example:
        >>> import torch
        >>> from anyorder.methods.accelerated import Accelerated
        >>> curvature = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
        >>> x = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        >>> optimizer = Accelerated([x], form="gradient", mu=1.0, L=100.0)
        >>> for _ in range(200):
        ...     loss = optimizer.step(lambda: (curvature * x ** 2).sum() / 2)
        >>> print(optimizer.certificate())
        gradient with mu = 1, L = 100 (proved)
        for strongly convex, smooth functions
        factor per step: promised 0.980198, measured 0.980198
        speed: 1.000 of the promise

    Departures from the papers:
        ``lr`` multiplies alpha; the theoretical rates hold for 1. The state is the difference
        :math:`(\xi_k - \xi_{k-1}) / \eta`, not the last point. There is no weight decay: add a
        penalty on the weights to the loss, so that ``mu`` and ``L`` include it.

    References:
        Parimi et al. (2025), "On the Dynamics of Acceleration in First order Gradient Methods",
        arXiv 2509.18346; Polyak (1964); Nesterov (1983, 2004); Beck and Teboulle (2009), the
        sequence t and its bound; O'Donoghue and Candès (2015), arXiv 1204.3982, the restart;
        Lessard, Recht and Packard (2016), arXiv 1408.3595, where heavy ball cycles; Van Scoy,
        Freeman and Lynch (2018), triple momentum.
    """

    order = 1
    rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {
        "told": (ACCELERATE,),
        "estimating": (ACCELERATE, TAKE_MOVE),
    }
    answer_buffer = "difference"

    lr: float = hyper(
        1.0, ge=0, search="log", low=1e-2, high=1e2, doc="factor on the theoretical step size"
    )
    form: Form = hyper("nesterov_convex", choices=FORMS, doc="method of the family")
    mu: float | None = hyper(None, gt=0, unit="gradient / parameter", doc="smallest curvature")
    L: float | None = hyper(None, gt=0, unit="gradient / parameter", doc="largest curvature")
    restart: bool = hyper(True, doc="restart nesterov_convex when a step increases the loss")

    def __init__(self, params: Any, **options: Any) -> None:
        self._gamma, self._t, self._restarts = 0.0, 1.0, 0
        self._probe = 0.0  # the alpha to use while L is unknown
        self._curvatures: tuple[float, float] | None = None  # smallest and largest so far
        self._slope: float | None = None  # of the last gradient along the last step
        self._record: list[tuple[int, float]] = []
        self._every, self._now = 1, Constants(0.0, 0.0, 0.0, 0.0, 1.0)
        super().__init__(params, **options)

    def certificate(self) -> Certificate:
        """Return the theoretical rate for these constants and the measured one.

        Call it before the run reaches rounding errors: after that, no factor can be measured.
        """
        group = self.param_groups[0]
        form: Form = group["form"]
        mu, smooth = self._known(group)
        rate = bound = None
        if form == "nesterov_convex":
            mu = None
            bound = 2.0 * smooth / (self.steps + 1) ** 2 if smooth and not self._restarts else None
        elif mu and smooth:
            rate = constants(form, mu, smooth).rate
        proved = (
            not _estimates(group)
            and self.after is None
            and all(
                g["lr"] == 1 and not g["cautious"] and g["clip_norm"] is None
                for g in self.param_groups
            )
        )
        measured = self._measured()
        return Certificate(form, mu, smooth, proved, self.steps, rate, bound, measured)

    def check_group(self, group: dict[str, Any]) -> None:
        """Check ``mu <= L``, and that all groups use the same method."""
        mu, smooth = group["mu"], group["L"]
        if mu is not None and smooth is not None and mu > smooth:
            raise HyperError(f"mu: expected at most L = {smooth:g}, got {mu:g}")
        for other in getattr(self, "param_groups", [])[:1]:
            for name in ("form", "mu", "L", "restart"):
                if other[name] != group[name]:
                    raise HyperError(
                        f"{name}: expected the same in all groups, {other[name]!r}, got "
                        f"{group[name]!r}; only lr may differ"
                    )

    def label(self, name: str, group: Mapping[str, Any]) -> str:
        """The last update is stored only if curvature is estimated."""
        return "estimating" if _estimates(group) else "told"

    def answer_scale(self, group: Mapping[str, Any]) -> float:
        """From y to x."""
        return float(group["lr"]) * (self._now.delta - self._gamma)

    def _scalars(self, group: Mapping[str, Any], step: int) -> dict[str, float]:
        """See the class for the symbols."""
        lr = float(group["lr"])
        return {
            "alpha": self._now.alpha,
            "beta": self._now.beta,
            "back": lr * self._gamma,
            "ahead": lr * (1.0 + self._now.gamma),
        }

    def update(self, oracle: Oracle) -> Tensor:
        """Compute one gradient and update; also measure the rate."""
        loss, grads = oracle.grad()
        group, before = self.param_groups[0], list[Tensor]()
        watching, clip = _estimates(group), group["clip_norm"]
        noting = self.steps % self._every == 0
        # The norm costs a pass over the gradient, so it is computed only if it is used.
        asked = noting or watching or clip is not None or group["form"] == "nesterov_convex"
        square = self._square(grads) if asked else math.nan
        if noting:
            self._note(math.sqrt(square))
        whole = clip is None or math.sqrt(square) < CLIPPED * clip
        if watching:
            self._see(grads, square, whole)
            before = [p.clone() for p in self.named_params().values()]
        self._now = self._choose(grads, square)
        self.apply(ACCELERATE, grads, scalars=self._scalars)
        self._gamma = self._now.gamma
        if watching:
            self.apply(TAKE_MOVE, before)
            self._slope = self._inner(self._values("move"), grads) if whole else None
        return loss

    def extra_state(self) -> dict[str, Any]:
        """Momentum of the next step, curvatures, gradient norms."""
        return {
            "now": list(self._now),
            "momentum": [self._gamma, self._t, self._restarts],
            "probe": self._probe,
            "curvatures": None if self._curvatures is None else list(self._curvatures),
            "slope": self._slope,
            "record": [list(entry) for entry in self._record],
            "every": self._every,
        }

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Load what :meth:`extra_state` saved."""
        curvatures, slope = extra["curvatures"], extra["slope"]
        self._now = Constants(*numbers(extra, extra["now"], "now", 5))
        self._gamma, self._t, self._restarts = numbers(extra, extra["momentum"], "momentum", 3)
        self._probe = number(extra, extra["probe"], "probe", least=0.0)
        self._slope = None if slope is None else number(extra, slope, "slope")
        self._every = number(extra, extra["every"], "every", least=1, whole=True)
        pair = None if curvatures is None else numbers(extra, curvatures, "curvatures", 2)
        if pair is not None and not 0.0 < pair[0] <= pair[1]:
            raise CheckpointError(f"curvatures: expected two numbers > 0 in order, got {pair}")
        self._curvatures = None if pair is None else (pair[0], pair[1])
        entries = [numbers(extra, entry, "record", 2) for entry in extra["record"]]
        self._record = [(step, norm) for step, norm in entries]

    # Internals -----------------------------------------------------------------------------

    def _choose(self, grads: Sequence[Tensor | None], square: float) -> Constants:
        """The constants of this step; gamma is that of the next point."""
        group = self.param_groups[0]
        mu, smooth = self._known(group)
        if smooth is None:
            return Constants(self._probe, 0.0, 0.0, 0.0, 1.0)
        chosen = constants(group["form"], smooth if mu is None else mu, smooth)
        if group["form"] != "nesterov_convex":
            return chosen
        t = (1.0 + math.sqrt(1.0 + 4.0 * self._t**2)) / 2.0
        chosen = chosen._replace(beta=self._gamma, gamma=(self._t - 1.0) / t)
        if group["restart"] and self._uphill(chosen, grads, square):
            self._t, self._restarts = 1.0, self._restarts + 1
            return chosen._replace(gamma=0.0)
        self._t = t
        return chosen

    def _uphill(self, chosen: Constants, grads: Sequence[Tensor | None], square: float) -> bool:
        """Whether the next step of xi has a positive inner product with the gradient."""
        if not chosen.beta:
            return False
        along = self._inner(self._values("difference"), grads)
        return chosen.beta * along > chosen.alpha * square

    def _known(self, group: Mapping[str, Any]) -> tuple[float | None, float | None]:
        """The constants from the settings, or else their estimates, with ``mu <= L``."""
        least, largest = self._curvatures or (None, None)
        mu: float | None = group["mu"] if group["mu"] is not None else least
        smooth: float | None = group["L"] if group["L"] is not None else largest
        if mu is None or smooth is None:
            return mu, smooth
        return (mu, max(mu, smooth)) if group["L"] is None else (min(mu, smooth), smooth)

    def _see(self, grads: Sequence[Tensor | None], square: float, whole: bool) -> None:
        """Update the curvatures from the last step, and the length of a probe."""
        params, moves = list(self.named_params().values()), self._values("move")
        size = math.sqrt(self._square(params))
        eps = max(torch.finfo(p.dtype).eps for p in params)
        length = self._square(moves)
        if whole and self._slope is not None and math.sqrt(length) > ROUNDING * eps * size:
            curvature = (self._inner(moves, grads) - self._slope) / length
            if 0.0 < curvature < math.inf:
                least, largest = self._curvatures or (curvature, curvature)
                self._curvatures = (min(least, curvature), max(largest, curvature))
        share = max(PROBE, PROBE_ROUNDING * eps)
        self._probe = share * max(size, 1.0) / math.sqrt(square) if square > 0.0 else 0.0

    def _note(self, norm: float) -> None:
        """Record the gradient norm of this step; entries become sparser during the run."""
        self._record.append((self.steps, norm))
        if len(self._record) == RECORD:
            self._record, self._every = self._record[::2], 2 * self._every

    def _measured(self) -> float | None:
        """Mean factor per step between the middle and the end of the record."""
        if len(self._record) < 3:
            return None
        (first, start), (last, end) = self._record[len(self._record) // 2], self._record[-1]
        return (end / start) ** (1.0 / (last - first)) if start > 0.0 else 0.0

    def _values(self, name: str) -> list[Tensor]:
        return list(self.buffer(name).values())

    def _square(self, tensors: Sequence[Tensor | None]) -> float:
        """The squared norm over all parameters; ``None`` counts as zero."""
        # In the order of the elements, not of memory, so that layout changes no bit.
        flat = [_wide(local(t)).reshape(-1) for t in tensors if t is not None]
        norms = [torch.linalg.vector_norm(t) for t in flat]
        total = torch.zeros((), dtype=torch.float64, device="cpu")
        if norms:
            total = torch.stack([n.double() ** 2 for n in norms]).sum()
        return float(summed(total, list(self.named_params().values())))

    def _inner(self, first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> float:
        """The inner product over all parameters, summed in float64; ``None`` counts as zero."""
        total = torch.zeros((), dtype=torch.float64, device="cpu")
        for a, b in zip(first, second, strict=True):
            if a is not None and b is not None:
                product = _wide(local(a)) * local(b)
                total = total.to(product.device) + product.reshape(-1).sum(dtype=torch.float64)
        return float(summed(total, list(self.named_params().values())))


def _wide(tensor: Tensor) -> Tensor:
    """At least float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _estimates(group: Mapping[str, Any]) -> bool:
    """Whether a constant that the form needs is ``None``."""
    return group["L"] is None or (group["mu"] is None and group["form"] != "nesterov_convex")
