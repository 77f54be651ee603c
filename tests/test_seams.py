"""Where methods are written: small complete ones, each at another seam, against NumPy.

Each of them is a whole method. What surrounds it (decay, clipping, masks, precision of state,
checkpoints that resume bit for bit, the ledger) it gets from the base, and that is tested too.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from anyorder import SGD, Optimizer, Oracle, Population, ScheduleFreeAdamW
from anyorder.hyper import HyperError, hyper
from anyorder.model.sharding import is_sharded
from anyorder.optimizer.entry import Slot
from anyorder.optimizer.population import AnswersError
from anyorder.optimizer.record import CheckpointError, numbers
from anyorder.oracle import NeedsError
from anyorder.oracle.named_closures import OwnerError
from anyorder.points.directions import Seeded, Shift
from anyorder.rules import Rule
from anyorder.rules.adamw import ADAMW
from anyorder.rules.descent import DESCENT, HEAVY_BALL, lr_of

Array = NDArray[np.float64]


def double(values: Any) -> nn.Parameter:
    return nn.Parameter(torch.tensor(np.array(values), dtype=torch.float64))


def through_a_file(state: Any) -> Any:
    """As another process finds it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumes(
    make: Callable[[], tuple[list[Tensor], Optimizer]],
    step: Callable[[Optimizer, list[Tensor]], Any],
    steps: int = 3,
) -> list[Tensor]:
    """Where a run ends, whether it is broken off in the middle or not."""
    params, unbroken = make()
    for _ in range(steps):
        step(unbroken, params)
    kept = through_a_file([[p.detach() for p in params], unbroken.state_dict()])
    others, fresh = make()
    fresh.load_state_dict(kept[1])
    with torch.no_grad():
        for other, value in zip(others, kept[0], strict=True):
            other.copy_(value)
    for _ in range(steps):
        step(unbroken, params)
        step(fresh, others)
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))
    mine, theirs = (o.calls.to_dict() | {"seconds": 0} for o in (unbroken, fresh))
    assert mine == theirs and fresh.steps == 2 * steps
    return params


# State of other shapes: Kronecker factors ---------------------------------------------------------


def square(axis: int) -> Slot:
    """A square matrix for one axis of a matrix; the identity at first."""

    def shape(param: Tensor, group: Mapping[str, Any]) -> tuple[int, ...] | None:
        return (param.shape[axis],) * 2 if param.ndim == 2 else None

    return Slot(shape, fill="eye")


class ToyKFAC(Optimizer):
    """Weights of linear layers descend in the metric of their Kronecker factors."""

    rule = DESCENT
    slots = {  # noqa: RUF012
        "inputs": square(1),
        "outputs": square(0),
        "inputs_inverse": square(1),
        "outputs_inverse": square(0),
    }
    memory: float = hyper(0.9, ge=0, lt=1, doc="share of the old factors kept")
    damping: float = hyper(0.1, gt=0, doc="added to the diagonals of the factors")
    every: int = hyper(2, ge=1, doc="steps between two inversions")

    def check_group(self, group: dict[str, Any]) -> None:
        """Factors belong to whole layers."""
        if self.module is None:
            raise NeedsError("ToyKFAC looks into layers: pass the module, ToyKFAC(model)")
        if any(map(is_sharded, group["params"])):
            raise NeedsError("ToyKFAC inverts whole factors and cannot do so over sharded weights")

    @contextmanager
    def watched(self) -> Iterator[dict[Tensor, list[Tensor]]]:
        """What goes into each linear layer, and the gradient of what comes out."""
        assert self.module is not None
        seen: dict[Tensor, list[Tensor]] = {}

        def look(layer: nn.Linear, args: Any, out: Tensor) -> None:
            seen[layer.weight] = [args[0].detach()]
            out.register_hook(lambda grad: seen[layer.weight].append(grad))

        layers = [layer for layer in self.module.modules() if isinstance(layer, nn.Linear)]
        hooks = [layer.register_forward_hook(look) for layer in layers]  # type: ignore[arg-type]
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def update(self, oracle: Oracle) -> Tensor:
        """A gradient, looked at on its way; factors, now and then their inverses; a step."""
        with self.watched() as seen:
            loss, grads = oracle.grad()
        moves: list[Tensor | None] = []
        named = zip(self.named_params().values(), self.entries().values(), grads, strict=True)
        for param, entry, grad in named:
            if grad is not None and param in seen:
                self.learn(entry, *seen[param])
                grad = entry["outputs_inverse"] @ grad @ entry["inputs_inverse"]
            moves.append(grad)
        self.apply(DESCENT, moves)
        return loss

    def learn(self, entry: dict[str, Any], inputs: Tensor, grads: Tensor) -> None:
        """Second moments over the batch; the loss is a mean over it."""
        count = len(inputs)
        for name, values, scale in (("inputs", inputs, 1 / count), ("outputs", grads, count)):
            factor = entry[name]
            factor.mul_(self.memory).add_((1 - self.memory) * scale * values.T @ values)
            if self.steps % self.every == 0:
                damped = factor + self.damping * torch.eye(len(factor), dtype=factor.dtype)
                entry[f"{name}_inverse"].copy_(torch.linalg.inv(damped))


RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(16, 3)), RNG.normal(size=(16, 2))
WEIGHTS = [RNG.normal(size=(4, 3)), RNG.normal(size=4), RNG.normal(size=(2, 4)), RNG.normal(size=2)]


def toy_kfac(**options: Any) -> tuple[list[Tensor], Optimizer]:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for param, value in zip(model.parameters(), WEIGHTS, strict=True):
            param.copy_(torch.tensor(value))
    return list(model.parameters()), ToyKFAC(model, lr=0.1, engine="eager", **options)


def fit(optimizer: Any) -> Any:
    x, y = torch.tensor(X), torch.tensor(Y)
    return optimizer.step(lambda: ((optimizer.module(x) - y) ** 2).sum(1).mean() / 2)


def kfac_by_hand(steps: int, decay: float = 0.0) -> list[Array]:
    weights = [w.copy() for w in WEIGHTS]
    factors = [[np.eye(n) for n in w.shape[::-1]] for w in (WEIGHTS[0], WEIGHTS[2])]
    inverses = [[np.eye(n) for n in w.shape[::-1]] for w in (WEIGHTS[0], WEIGHTS[2])]
    for step in range(steps):
        hidden = np.tanh(X @ weights[0].T + weights[1])
        last = (hidden @ weights[2].T + weights[3] - Y) / len(X)
        first = (last @ weights[2]) * (1 - hidden**2)
        for layer, (inputs, grads) in enumerate(((X, first), (hidden, last))):
            moments = (inputs.T @ inputs / len(X), len(X) * grads.T @ grads)
            for side, moment in enumerate(moments):
                factors[layer][side] = 0.9 * factors[layer][side] + 0.1 * moment
                if step % 2 == 0:
                    damped = factors[layer][side] + 0.1 * np.eye(len(moment))
                    inverses[layer][side] = np.linalg.inv(damped)
            slope = inverses[layer][1] @ (grads.T @ inputs) @ inverses[layer][0]
            for index, move in ((2 * layer, slope), (2 * layer + 1, grads.sum(0))):
                weights[index] = weights[index] * (1 - 0.1 * decay) - 0.1 * move
    return weights


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_factors_of_layers_are_state_in_slots(decay: float) -> None:
    options = {"weight_decay": decay, "decoupled_weight_decay": True}
    params, optimizer = toy_kfac(**options)
    first = fit(optimizer)
    for _ in range(4):
        last = fit(optimizer)
    assert last < first
    for param, expected in zip(params, kfac_by_hand(5, decay), strict=True):
        np.testing.assert_allclose(param.detach(), expected, rtol=1e-10)
    sides = 2 * (3**2 + 4**2) + 2 * (4**2 + 2**2)  # factors and inverses of two layers
    assert optimizer.state_bytes() == 8 * sides
    resumes(lambda: toy_kfac(**options), lambda optimizer, _: fit(optimizer))


def test_a_factor_that_does_not_fit_is_refused() -> None:
    _, optimizer = toy_kfac()
    fit(optimizer)
    state = optimizer.state_dict()
    state["state"][0]["inputs"] = torch.eye(4, dtype=torch.float64)
    with pytest.raises(CheckpointError, match=r"inputs of 0.weight has shape \(4, 4\); expected"):
        toy_kfac()[1].load_state_dict(state)


def test_what_factors_cannot_be_had_of_is_refused_in_words() -> None:
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    with pytest.raises(NeedsError, match=r"ToyKFAC\(model\)"):
        ToyKFAC([double([[1.0]])])
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        layer = nn.Linear(2, 2)
        mesh = init_device_mesh("cpu", (1,))
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh, [Shard(0)]))
        with pytest.raises(NeedsError, match="over sharded weights"):
            ToyKFAC(layer)
    finally:
        dist.destroy_process_group()


# Estimator times rule -----------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoPoint:
    """The slope along a random direction, times the direction."""

    needs: frozenset[str] = frozenset({"value"})
    hypers: Mapping[str, Any] = field(
        default_factory=lambda: {"radius": hyper(1e-3, gt=0, doc="distance of the two points")}
    )

    def __call__(self, method: Any, oracle: Oracle) -> tuple[Tensor, list[Tensor | None]]:
        """Two values."""
        z, radius = method.direction(), method.radius
        ahead, behind = oracle.values([Shift(radius, z), Shift(-radius, z)])
        slope = (ahead - behind) / (2 * radius)
        named = method.named_params().items()
        return (ahead + behind) / 2, [slope * z.tensor(name, p) for name, p in named]


def sign_(param: Tensor, grad: Tensor, *, lr: Tensor) -> None:
    """``x <- x - lr sign(g)``."""
    param.sub_(grad.sign() * lr)


class ZOSign(Optimizer):
    """Signs of the estimate."""

    order = 0
    estimator = TwoPoint()
    rule = Rule(sign_, scalars=lr_of, hypers=DESCENT.hypers)


class ZODescent(Optimizer):
    """The estimate itself."""

    order = 0
    estimator = TwoPoint()
    rule = DESCENT


class ZOAdamW(Optimizer):
    """The estimate as AdamW takes gradients."""

    order = 0
    estimator = TwoPoint()
    rule = ADAMW


CURVES = {"a": np.array([[1.0, 4.0, 0.5], [2.0, 1.0, 3.0]]), "b": np.array([0.3, 2.0])}
START = {"a": np.array([[1.0, -2.0, 0.5], [0.3, 1.5, -1.0]]), "b": np.array([2.0, -1.0])}
AROUND: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight_decay": {"weight_decay": 0.5},
    "clip_norm": {"clip_norm": 0.7},
    "cautious": {"cautious": True},
}
ESTIMATING = {"sign": ZOSign, "descent": ZODescent, "adamw": ZOAdamW}


def estimating(kind: Any, **options: Any) -> tuple[list[Tensor], Optimizer]:
    params = {name: double(value) for name, value in START.items()}
    return list(params.values()), kind(params.items(), lr=0.05, seed=3, engine="eager", **options)


def bowl(optimizer: Any, params: list[Tensor]) -> Any:
    curves = [torch.tensor(c) for c in CURVES.values()]
    pairs = list(zip(curves, params, strict=True))
    return optimizer.step(lambda: sum((c * p**2).sum() / 2 for c, p in pairs))


def estimates_by_hand(kind: str, steps: int, options: Mapping[str, Any]) -> dict[str, Array]:
    x = {name: value.copy() for name, value in START.items()}
    m, v = ({name: np.zeros_like(value) for name, value in x.items()} for _ in range(2))
    for step in range(steps):
        z = {n: Seeded(3, step).tensor(n, torch.tensor(value)).numpy() for n, value in x.items()}
        slope = sum((CURVES[n] * x[n] * z[n]).sum() for n in x)  # exact for a quadratic
        grad = {n: slope * z[n] for n in x}
        norm = np.sqrt(sum((g**2).sum() for g in grad.values()))
        factor = min(1.0, options.get("clip_norm", np.inf) / norm)
        for n, g in grad.items():
            g = g * factor
            m[n], v[n] = 0.9 * m[n] + 0.1 * g, 0.999 * v[n] + 0.001 * g**2
            hat = m[n] / (1 - 0.9 ** (step + 1)), v[n] / (1 - 0.999 ** (step + 1))
            adam = hat[0] / (np.sqrt(hat[1]) + 1e-8)
            move = -0.05 * {"sign": np.sign(g), "descent": g, "adamw": adam}[kind]
            if options.get("cautious"):
                kept = move * g < 0
                move = np.where(kept, move, 0.0) * g.size / (kept.sum() + 1)
            x[n] = x[n] * (1 - 0.05 * options.get("weight_decay", 0.0)) + move
    return x


@pytest.mark.parametrize("option", AROUND)
@pytest.mark.parametrize("kind", ESTIMATING)
def test_an_estimator_and_a_rule_are_a_method(kind: str, option: str) -> None:
    options = {"weight_decay": 0.0, "decoupled_weight_decay": True, **AROUND[option]}
    method = ESTIMATING[kind]
    assert method.needs == {"value"} and {"radius", "lr", option} - {"plain"} <= set(method.hypers)
    params, optimizer = estimating(method, **options)
    for _ in range(6):
        bowl(optimizer, params)
    expected = estimates_by_hand(kind, 6, options)
    for param, value in zip(params, expected.values(), strict=True):
        np.testing.assert_allclose(param.detach(), value, rtol=2e-6)
    assert (optimizer.calls.values, optimizer.calls.grads) == (12, 0)
    assert optimizer.state_bytes() == (2 * 8 * 8 if kind == "adamw" else 0)
    resumes(lambda: estimating(method, **options), bowl)


@pytest.mark.parametrize(
    ("state", "size"), [("fp32", 8 * 4096), ("bf16", 4 * 4096), ("8bit", 2 * (4096 + 16 * 4))]
)
def test_state_of_estimates_is_kept_in_any_precision(state: str, size: int) -> None:
    def make() -> tuple[list[Tensor], Optimizer]:
        x = nn.Parameter(torch.ones(4096))
        return [x], ZOAdamW([("x", x)], lr=1e-2, state=state, engine="eager")  # type: ignore[list-item]

    def step(optimizer: Optimizer, params: list[Tensor]) -> Tensor:
        return optimizer.step(lambda: (params[0] ** 2).sum())

    (x,), optimizer = make()
    begin = step(optimizer, [x])
    for _ in range(20):
        end = step(optimizer, [x])
    assert end < begin and optimizer.state_bytes() == size
    resumes(make, step)


# A projection at the end of a step ----------------------------------------------------------------


def box(name: str, param: Tensor) -> None:
    param.clamp_(-1.0, 1.0)


def mask(name: str, param: Tensor) -> None:
    param[1].zero_()


def grid(name: str, param: Tensor) -> None:
    param.mul_(64).round_().div_(64)


PROJECTIONS: dict[str, tuple[Any, Callable[[Array], Array]]] = {
    "box": (box, lambda x: x.clip(-1, 1)),
    "mask": (mask, lambda x: x * np.array([[1.0], [0.0], [1.0]])),
    "grid": (grid, lambda x: np.round(x * 64) / 64),
}
GOAL = np.array([[3.0, 0.5], [-2.0, 1.0], [-0.25, -5.0]])


def towards_goal(optimizer: Optimizer, params: list[Tensor]) -> Any:
    goal = torch.tensor(GOAL)
    return optimizer.step(lambda: ((params[0] - goal) ** 2).sum() / 2)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_descent_is_projected(name: str) -> None:
    after, by_hand = PROJECTIONS[name]

    def make() -> tuple[list[Tensor], Optimizer]:
        x = double(GOAL / 4)
        return [x], SGD([x], lr=0.1, momentum=0.5, engine="eager", after=after)

    (param,) = resumes(make, towards_goal, 10)
    x, velocity = GOAL / 4, np.zeros_like(GOAL)
    for _ in range(20):
        velocity = 0.5 * velocity + (x - GOAL)
        x = by_hand(x - 0.1 * velocity)
    np.testing.assert_allclose(param.detach(), x, rtol=1e-12)


def schedule_free(after: Any) -> tuple[list[Tensor], Optimizer]:
    x = double(GOAL / 4)
    return [x], ScheduleFreeAdamW([x], lr=0.05, engine="eager", after=after)


@pytest.mark.parametrize("name", ["box", "mask"])
def test_averages_are_of_projected_points(name: str) -> None:
    after, by_hand = PROJECTIONS[name]
    (param,), optimizer = schedule_free(after)
    x = y = z = GOAL / 4
    v = np.zeros_like(GOAL)
    for step in range(1, 61):
        towards_goal(optimizer, [param])
        grad = y - GOAL
        v = 0.999 * v + 0.001 * grad**2
        z = by_hand(z - 0.05 * grad / (np.sqrt(v / (1 - 0.999**step)) + 1e-8))
        x = x + (z - x) / step
        y = 0.1 * z + 0.9 * x
        np.testing.assert_allclose(param.detach(), y, rtol=1e-10, atol=1e-14)
    training = param.detach().clone()
    with optimizer.answer():
        np.testing.assert_allclose(param.detach(), x, rtol=1e-10, atol=1e-14)
        assert np.array_equal(param.detach(), by_hand(param.detach().numpy()))
    assert np.array_equal(training, by_hand(training.numpy()))
    optimizer.eval()
    optimizer.train()
    assert torch.equal(param, training)
    resumes(lambda: schedule_free(after), towards_goal, 10)


@pytest.mark.parametrize("state", ["fp32", "bf16"])
def test_what_is_not_projected_keeps_its_bits(state: str) -> None:
    ends: list[Tensor] = []
    for after in (None, mask):
        x = nn.Parameter(torch.tensor(GOAL / 4, dtype=torch.float32))
        optimizer = ScheduleFreeAdamW([x], lr=0.05, engine="eager", after=after, state=state)
        for _ in range(10):
            towards_goal(optimizer, [x])
        with optimizer.answer():
            ends.append(x.detach().clone())
    free, masked = ends
    assert torch.equal(free[[0, 2]], masked[[0, 2]]) and not masked[1].any()


def test_a_weight_format_holds_in_training_and_for_the_answer() -> None:
    (param,), optimizer = schedule_free(grid)
    for _ in range(60):
        towards_goal(optimizer, [param])
        assert torch.equal(param * 64, (param * 64).round())
    with optimizer.answer():
        assert torch.equal(param * 64, (param * 64).round())
        assert (param.detach() - torch.tensor(GOAL)).abs()[0, 1] < 0.1
    resumes(lambda: schedule_free(grid), towards_goal, 10)


def test_a_projection_that_fails_leaves_the_answer_unshown() -> None:
    def broken(name: str, param: Tensor) -> None:
        param.zero_()
        raise ZeroDivisionError

    (param,), optimizer = schedule_free(None)
    towards_goal(optimizer, [param])
    before, optimizer.after = param.detach().clone(), broken
    with pytest.raises(ZeroDivisionError):
        optimizer.eval()
    assert torch.equal(param, before)
    optimizer.after = None
    towards_goal(optimizer, [param])  # not refused as it would be while the answer is shown


# Several closures ---------------------------------------------------------------------------------


class Implicit(Optimizer):
    """Inner steps of descent, then one along the implicit hypergradient."""

    order = 2
    needs = frozenset({"grad", "hessian"})
    closures = ("outer", "inner")
    rule = HEAVY_BALL
    inner_steps: int = hyper(3, ge=0, doc="inner steps for each outer one")
    solver_steps: int = hyper(60, ge=1, doc="iterations for the inverse Hessian")
    solver_lr: float = hyper(0.3, gt=0, doc="step size of these iterations")

    def placed(self, names: Sequence[str], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients in some parameters as a list over all of them."""
        found = dict(zip(names, grads, strict=True))
        return [found.get(name) for name in self.named_params()]

    def update(self, oracle: Any) -> Tensor:
        """The inner problem, its Hessian's inverse by Richardson, the outer step."""
        inner, outer = oracle["inner"], oracle["outer"]
        for _ in range(self.inner_steps):
            self.descend(self.placed(list(inner.params), inner.grad()[1]), clip=False)
        loss, found = outer.over("outer", "inner").grad()
        direct, right = found[: len(outer.params)], found[len(outer.params) :]
        with inner.hessian() as hessian:
            solved = [torch.zeros_like(r) for r in right]
            for _ in range(self.solver_steps):
                products = hessian @ solved
                for s, r, p in zip(solved, right, products, strict=True):
                    s.add_(self.solver_lr * (r - p))
            mixed = hessian.cross(solved, "outer")
        slopes = [d - m for d, m in zip(direct, mixed, strict=True)]
        self.descend(self.placed(list(outer.params), slopes))
        return loss


A, B = np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([[1.0, -1.0, 0.5], [0.0, 2.0, 1.0]])
TARGET = np.array([1.0, -2.0])
X0 = np.array([0.5, -1.0, 2.0])


def hypergradient(x: Array) -> Array:
    """Of |y*(x) - target|^2/2 + |x|^2/2, where y* = A^-1 B x."""
    solved = np.linalg.solve(A, B @ x)
    return x + B.T @ np.linalg.solve(A, solved - TARGET)


def levels(y0: Any = (1.0, 1.0), **options: Any) -> tuple[list[Tensor], Any]:
    x, y = double(X0), double(y0)
    groups = [
        {"params": [("y", y)], "closure": "inner"},
        {"params": [("x", x)], "closure": "outer"},
    ]
    return [x, y], Implicit(groups, lr=0.3, engine="eager", **options)


def level_step(optimizer: Any, params: list[Tensor]) -> Tensor:
    x, y = params[:2]
    a, b, target = map(torch.tensor, (A, B, TARGET))
    return optimizer.step(
        {
            "outer": lambda: ((y - target) ** 2).sum() / 2 + (x**2).sum() / 2,
            "inner": lambda: y @ a @ y / 2 - y @ b @ x,
        }
    )


def test_a_step_of_two_levels_is_along_the_hypergradient() -> None:
    (x, y), optimizer = levels(np.linalg.solve(A, B @ X0), inner_steps=0, solver_steps=200)
    loss = level_step(optimizer, [x, y])
    assert loss == pytest.approx(((y.detach().numpy() - TARGET) ** 2).sum() / 2 + (X0**2).sum() / 2)
    np.testing.assert_allclose(x.detach(), X0 - 0.3 * hypergradient(X0), rtol=1e-12)
    assert (optimizer.calls.grads, optimizer.calls.products) == (2, 201)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}, {"cautious": True}])
def test_two_levels_are_solved_together(options: dict[str, Any]) -> None:
    params, optimizer = levels(solver_steps=20, **options)
    for _ in range(60):
        level_step(optimizer, params)
    assert np.linalg.norm(hypergradient(params[0].detach().numpy())) < 1e-3
    assert optimizer.state_bytes() == 8 * 5
    resumes(lambda: levels(solver_steps=5, **options), level_step)


def test_the_norm_of_a_hypergradient_is_bounded() -> None:
    (x, y), optimizer = levels(np.linalg.solve(A, B @ X0), inner_steps=0, clip_norm=0.5)
    level_step(optimizer, [x, y])
    assert np.linalg.norm(x.detach().numpy() - X0) <= 0.3 * 0.5 + 1e-6


def test_closures_and_groups_that_do_not_fit_are_refused() -> None:
    params, optimizer = levels()
    for given, says in (
        (params[0].sum, "closures by name for Implicit"),
        ({"outer": params[0].sum}, "missing inner"),
        (dict.fromkeys(("outer", "inner", "middle"), params[0].sum), "unknown middle"),
    ):
        with pytest.raises(NeedsError, match=says):
            optimizer.step(given)
    plain = SGD([params[0]])
    with pytest.raises(NeedsError, match="expected one closure for SGD"):
        plain.step({"outer": params[0].sum, "inner": params[0].sum})
    z = double([1.0])
    for group in ({"params": [z], "closure": "middle"}, {"params": [z]}):
        with pytest.raises(OwnerError, match=r"expected one of .* in parameter group 2, got"):
            optimizer.add_param_group(group)
    with pytest.raises(OwnerError, match="in parameter group 0, got None"):
        Implicit([z])
    assert len(optimizer.param_groups) == 2 and z not in optimizer.state
    optimizer.add_param_group({"params": [("z", z)], "closure": "outer"})
    assert list(optimizer.oracle(dict.fromkeys(("outer", "inner"), z.sum))["outer"].params) == [
        "x",
        "z",
    ]


# Points that are told how they fare ---------------------------------------------------------------


class Told(Population):
    """Antithetic pairs, half of them at a time; descends along the slopes that values show."""

    order = 0
    needs = frozenset({"value"})
    rule = HEAVY_BALL
    pairs: int = hyper(4, ge=1, doc="pairs of points a step")
    radius: float = hyper(0.1, gt=0, doc="distance of a point")

    def __init__(self, params: Any, **options: Any) -> None:
        self.slopes: list[float] = []  # of the pairs that were judged in this step
        super().__init__(params, **options)

    def ask(self) -> list[Shift]:
        """The next pairs."""
        numbered = range(len(self.slopes), min(len(self.slopes) + 2, self.pairs))
        return [Shift(s, self.direction(i)) for i in numbered for s in (self.radius, -self.radius)]

    def learn(self, values: Tensor) -> bool:
        """Slopes of these; with the last ones a step."""
        self.slopes += ((values[::2] - values[1::2]) / (2 * self.radius)).tolist()
        if len(self.slopes) < self.pairs:
            return False
        named = self.named_params()
        estimate = {name: torch.zeros_like(p) for name, p in named.items()}
        for index, slope in enumerate(self.slopes):
            self.direction(index).add_all_(estimate, slope / self.pairs, self.engine)
        self.slopes = []
        self.descend(list(estimate.values()))
        return True

    def extra_state(self) -> dict[str, Any]:
        """What was told of an unfinished step."""
        return {"slopes": list(self.slopes)}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Take it over."""
        self.slopes = numbers(extra, extra["slopes"], "slopes", None)


def simulated(point: Mapping[str, Tensor]) -> float:
    """Something outside that knows no tensors and no gradients."""
    speed, angles = point["speed"].item(), point["angles"].tolist()
    return (speed - 3.0) ** 2 + sum((a - i) ** 2 for i, a in enumerate(angles))


def told(**options: Any) -> tuple[list[Tensor], Any]:
    params = {"speed": double(1.0), "angles": double([0.5, 0.5, 0.5])}
    optimizer = Told(params.items(), lr=0.1, seed=5, engine="eager", **options)
    return list(params.values()), optimizer


def tell(optimizer: Any, params: Any = None) -> bool:
    return optimizer.tell(values=[simulated(point) for point in optimizer.candidates()])


def told_by_hand(steps: int, **options: Any) -> list[Array]:
    x = {"speed": np.array(1.0), "angles": np.array([0.5, 0.5, 0.5])}
    velocity = {name: np.zeros_like(value) for name, value in x.items()}
    goal = {"speed": np.array(3.0), "angles": np.arange(3.0)}
    for step in range(steps):
        grad = {name: np.zeros_like(value) for name, value in x.items()}
        for index in range(4):
            z = {n: Seeded(5, step, index).tensor(n, torch.tensor(v)).numpy() for n, v in x.items()}
            slope = sum((2 * (x[n] - goal[n]) * z[n]).sum() for n in x)
            grad = {n: grad[n] + slope * z[n] / 4 for n in x}
        norm = np.sqrt(sum((g**2).sum() for g in grad.values()))
        for n, g in grad.items():
            velocity[n] = 0.5 * velocity[n] + g * min(1.0, options.get("clip_norm", np.inf) / norm)
            x[n] = np.clip(x[n] - 0.1 * velocity[n], -options["bound"], options["bound"])
    return list(x.values())


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_values_from_outside_make_steps(clip_norm: float | None) -> None:
    params, optimizer = told(
        momentum=0.5, clip_norm=clip_norm, after=lambda _, p: p.clamp_(-1.25, 1.25)
    )
    assert [tell(optimizer) for _ in range(12)] == [False, True] * 6
    limit = {} if clip_norm is None else {"clip_norm": clip_norm}
    for param, value in zip(params, told_by_hand(6, bound=1.25, **limit), strict=True):
        np.testing.assert_allclose(param.detach(), value, rtol=1e-6)
    assert (optimizer.steps, optimizer.calls.values) == (6, 48)
    assert optimizer.state_bytes() == 8 * 4


def test_an_answer_may_come_after_a_restart() -> None:
    options = {"momentum": 0.5, "cautious": True}
    params, unbroken = told(**options)
    for _ in range(3):
        tell(unbroken)  # in the middle of the second step
    shown = unbroken.candidates()
    kept = through_a_file([[p.detach() for p in params], unbroken.state_dict()])
    others, fresh = told(**options)
    with torch.no_grad():
        for other, value in zip(others, kept[0], strict=True):
            other.copy_(value)
    fresh.load_state_dict(kept[1])
    for a, b in zip(shown, fresh.candidates(), strict=True):
        assert a.keys() == b.keys() == {"speed", "angles"}
        assert all(torch.equal(a[name], b[name]) for name in a)
    for _ in range(5):
        assert tell(unbroken) is tell(fresh)
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))
    assert fresh.steps == unbroken.steps == 4


def test_a_step_is_what_telling_makes() -> None:
    (speed, angles), optimizer = told()
    others, by_hand = told()
    for _ in range(2):
        tell(by_hand)
    optimizer.step(lambda: (speed - 3) ** 2 + ((angles - torch.arange(3)) ** 2).sum())
    for a, b in zip((speed, angles), others, strict=True):
        torch.testing.assert_close(a, b)


def test_answers_that_do_not_fit_change_nothing() -> None:
    params, optimizer = told()
    before = [p.detach().clone() for p in params]
    for wrong in ({"values": [1.0]}, {"order": [0, 1, 2, 3]}, {}, {"order": [0], "values": [1.0]}):
        with pytest.raises(AnswersError):
            optimizer.tell(**wrong)
    assert all(map(torch.equal, params, before)) and not optimizer.slopes
    assert optimizer.calls.values == 0


# A communicator of one's own ----------------------------------------------------------------------


@dataclass(frozen=True)
class MajorityVote:
    """One bit for each element of the gradient; the majority of all processes decides."""

    needs: frozenset[str] = frozenset({"grad"})
    hypers: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __call__(self, method: Any, oracle: Oracle) -> tuple[Tensor, list[Tensor | None]]:
        """The gradient of this process; its signs are sent, and counted."""
        loss, grads = oracle.local.grad()
        found = [g for g in grads if g is not None]
        bits = np.concatenate([(g > 0).numpy().ravel() for g in found])
        votes = oracle.exchange(np.packbits(bits).tobytes())
        read = [np.unpackbits(np.frombuffer(v, np.uint8), count=len(bits)) for v in votes]
        signs = torch.from_numpy(np.sign(2 * np.sum(read, 0, dtype=np.int64) - len(votes)))
        parts = iter(signs.double().split([g.numel() for g in found]))
        return loss, [None if g is None else next(parts).view_as(g).to(g.dtype) for g in grads]


class Voting(Optimizer):
    """Descent along what the majority votes for."""

    estimator = MajorityVote()
    rule = DESCENT


class Committee:
    """The other processes of a run, kept in this one; they send votes and nothing else."""

    rank, size = 0, 3

    def __init__(self, others: Sequence[Callable[[], bytes]]) -> None:
        self.others = others

    def mean_(self, tensors: Sequence[Tensor]) -> int:
        raise AssertionError("no mean was asked for")

    def exchange(self, message: bytes) -> list[bytes]:
        return [message, *[other() for other in self.others]]


CENTRES = [np.arange(10.0), np.arange(10.0)[::-1].copy(), np.full(10, 2.25)]


def voting(**options: Any) -> tuple[list[Tensor], Any]:
    x = double(np.zeros(10))

    def vote(centre: Array) -> Callable[[], bytes]:
        return lambda: np.packbits(x.detach().numpy() > centre).tobytes()

    committee: Any = Committee([vote(centre) for centre in CENTRES[1:]])
    return [x], Voting([x], lr=0.5, engine="eager", process_group=committee, **options)


def vote_step(optimizer: Any, params: list[Tensor]) -> Tensor:
    centre = torch.tensor(CENTRES[0])
    return optimizer.step(lambda: ((params[0] - centre) ** 2).sum())


@pytest.mark.parametrize("cautious", [False, True])
def test_processes_may_exchange_votes_in_place_of_a_mean(cautious: bool) -> None:
    (x,), optimizer = voting(cautious=cautious)
    expected = np.zeros(10)
    for _ in range(20):
        vote_step(optimizer, [x])
        up = np.sign(sum(np.where(expected > c, 1, -1) for c in CENTRES))
        kept = np.count_nonzero(up)
        expected -= 0.5 * up * (10 / (kept + 1) if cautious else 1.0)
        np.testing.assert_allclose(x.detach(), expected, rtol=1e-12, atol=1e-12)
    if not cautious:  # every element is at the median of the three centres, as near as steps are
        assert np.abs(expected - np.median(CENTRES, axis=0)).max() <= 0.5
    assert optimizer.calls.bytes_sent == 20 * 2  # ten bits in two bytes, where a mean has 80
    resumes(lambda: voting(cautious=cautious), vote_step)


def test_copies_share_the_communicator() -> None:
    _, optimizer = voting()
    assert copy.deepcopy(optimizer).process_group is optimizer.process_group
    with pytest.raises(HyperError, match="process_group: expected"):
        Voting([double([1.0])], process_group=object())  # type: ignore[arg-type]
