"""The accelerated family: its recursions by hand, known step counts, the cycle, the promises."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods._acceleration import FORMS, Form, constants
from anyorder.methods.accelerated import Accelerated
from anyorder.testing import MethodContract, Values, World

LINEAR: list[Form] = ["gradient", "heavy_ball", "nesterov", "triple_momentum"]
CURVATURES = np.logspace(0, 3, 200)


def parabola(
    curvatures: np.ndarray, start: np.ndarray, **settings: Any
) -> tuple[nn.Parameter, Accelerated, Callable[[], Tensor]]:
    """A quadratic with its minimum at zero."""
    x, c = nn.Parameter(torch.tensor(start)), torch.tensor(curvatures)
    return x, Accelerated([("x", x)], engine="eager", **settings), lambda: (c * x * x).sum() / 2


def curve() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor]]:
    """A function of a matrix and a vector with curvatures from 1 to 10, no quadratic."""
    rng = np.random.default_rng(3)
    params = {
        "matrix": nn.Parameter(torch.tensor(rng.normal(size=(3, 2)) * 3)),
        "vector": nn.Parameter(torch.tensor(rng.normal(size=4) * 3)),
    }

    def closure() -> Tensor:
        return torch.stack(
            [(9 * (p - 1).cosh().log() + p * p / 2).sum() for p in params.values()]
        ).sum()

    return params, closure


def slope(x: np.ndarray) -> np.ndarray:
    """The gradient of :func:`curve` by hand."""
    return 9 * np.tanh(x - 1) + x


def flat(params: dict[str, nn.Parameter]) -> np.ndarray:
    return torch.cat([p.detach().reshape(-1) for p in params.values()]).numpy().copy()


# The recursions --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", LINEAR)
@pytest.mark.parametrize("lr", [1.0, 0.4])
def test_equals_the_recursion_with_its_last_point(form: Form, lr: float) -> None:
    params, closure = curve()
    optimizer = Accelerated(params.items(), form=form, mu=1.0, L=10.0, lr=lr, engine="eager")
    c = constants(form, 1.0, 10.0)
    now = before = flat(params)
    for _ in range(40):
        y = (1 + c.gamma) * now - c.gamma * before
        np.testing.assert_allclose(flat(params), y, rtol=1e-11, atol=1e-12)
        now, before = (1 + c.beta) * now - c.beta * before - lr * c.alpha * slope(y), now
        optimizer.step(closure)
        with optimizer.answer():
            x = (1 + c.delta) * now - c.delta * before
            np.testing.assert_allclose(flat(params), x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("restart", [False, True])
def test_convex_form_equals_its_recursion(restart: bool) -> None:
    """Beck and Teboulle's sequence, and O'Donoghue and Candès's gradient restart of it."""
    params, closure = curve()
    settings: dict[str, Any] = {"form": "nesterov_convex", "L": 10.0, "restart": restart}
    optimizer = Accelerated(params.items(), engine="eager", **settings)
    y = x = flat(params)
    t, restarts = 1.0, 0
    for _ in range(60):
        np.testing.assert_allclose(flat(params), y, rtol=1e-10, atol=1e-12)
        gradient = slope(y)
        new = y - gradient / 10
        after = (1 + math.sqrt(1 + 4 * t * t)) / 2
        if restart and float(gradient @ (new - x)) > 0:
            y, x, t, restarts = new, new, 1.0, restarts + 1
        else:
            y, x, t = new + (t - 1) / after * (new - x), new, after
        optimizer.step(closure)
        with optimizer.answer():
            np.testing.assert_allclose(flat(params), x, rtol=1e-10, atol=1e-12)
    assert (restarts > 1) == restart
    assert (optimizer.certificate().bound is None) == restart


@pytest.mark.parametrize(
    ("form", "momentum", "nesterov"),
    [("gradient", 0.0, False), ("heavy_ball", None, False), ("nesterov", None, True)],
)
def test_takes_the_same_run_as_torch(form: Form, momentum: float | None, nesterov: bool) -> None:
    """Three members are torch's SGD; gradient descent is the one whose constants are zero."""
    c = constants(form, 1.0, 10.0)
    ours, closure = curve()
    theirs, other = curve()
    a = Accelerated(ours.items(), form=form, mu=1.0, L=10.0, engine="eager")
    keep = c.beta if momentum is None else momentum
    b = torch.optim.SGD(theirs.values(), lr=c.alpha, momentum=keep, nesterov=nesterov)
    assert form != "gradient" or c[1:4] == (0, 0, 0)
    for _ in range(40):
        a.step(closure)
        b.zero_grad()
        other().backward()
        b.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-11, atol=1e-12)


# Known step counts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "restart", "steps"),
    [
        pytest.param("gradient", False, 7_687, marks=pytest.mark.slow),
        ("heavy_ball", False, 345),
        ("nesterov", False, 547),
        ("triple_momentum", False, 583),
        ("nesterov_convex", True, 754),
        pytest.param("nesterov_convex", False, 12_588, marks=pytest.mark.slow),
    ],
)
def test_steps_to_eight_digits_on_a_quadratic_of_condition_1000(
    form: Form, restart: bool, steps: int
) -> None:
    """Counted with NumPy from the published recursions: the first step within 1e-8 of the start."""
    start = np.random.default_rng(0).normal(size=200)
    settings: dict[str, Any] = {"form": form, "mu": 1.0, "L": 1e3, "restart": restart}
    x, optimizer, closure = parabola(CURVATURES, start, **settings)
    shares: list[float] = []
    for step in range(steps):
        optimizer.step(closure)
        if step >= steps - 2:
            with optimizer.answer():
                shares.append(float(x.detach().norm()) / float(np.linalg.norm(start)))
    assert shares[0] > 1e-8 >= shares[1]


# The function on which heavy ball cycles -------------------------------------------------------

CYCLE = (792 / 1225, -2208 / 1225, 2592 / 1225)


def pieces(x: Tensor) -> Tensor:
    """Lessard, Recht and Packard's function: curvature 25, then 1 between 1 and 2, then 25."""
    inside = torch.where(x < 2, x * x / 2 + 24 * x - 12, 12.5 * x * x - 24 * x + 36)
    return torch.where(x < 1, 12.5 * x * x, inside).sum()


def on_pieces(form: Form, steps: int) -> tuple[nn.Parameter, Accelerated]:
    x = nn.Parameter(torch.tensor([3.3], dtype=torch.float64))
    optimizer = Accelerated([x], form=form, mu=1.0, L=25.0, engine="eager")
    for _ in range(steps):
        optimizer.step(lambda: pieces(x))
    return x, optimizer


def test_heavy_ball_cycles_for_ever() -> None:
    x, optimizer = on_pieces("heavy_ball", 600)
    for lap in range(3):
        for value in CYCLE:
            assert x.item() == pytest.approx(value, rel=1e-12), lap
            optimizer.step(lambda: pieces(x))
    certificate = optimizer.certificate()
    assert "quadratics only" in str(certificate)
    assert certificate.measured == pytest.approx(1.0, abs=1e-2)
    assert certificate.speed == pytest.approx(0.0, abs=0.02)


def test_the_cycle_repeats_exactly_in_fractions() -> None:
    """Each of its values follows from the two before by the heavy-ball recursion."""
    for k in range(3):
        old, now, new = CYCLE[k - 2], CYCLE[k - 1], CYCLE[k]
        gradient = 25 * now if now < 1 else 25 * now - 24
        assert now - gradient / 9 + 4 / 9 * (now - old) == pytest.approx(new, rel=1e-14)


@pytest.mark.parametrize("form", ["gradient", "nesterov", "triple_momentum", "nesterov_convex"])
def test_the_others_converge_there(form: Form) -> None:
    x, optimizer = on_pieces(form, 600)
    with optimizer.answer():
        assert abs(x.item()) < 1e-15


# The promises ----------------------------------------------------------------------------------


def gaps(form: Form, steps: int) -> tuple[list[float], list[float], float]:
    """Distances of the answer, gaps in value and the first distance, on two kinds of function."""
    params, closure = curve()
    optimizer = Accelerated(
        params.items(), form=form, mu=1.0, L=10.0, restart=False, engine="eager"
    )
    root = 0.0
    for _ in range(200):  # Newton for the minimum of one coordinate
        root -= (9 * math.tanh(root - 1) + root) / (9 / math.cosh(root - 1) ** 2 + 1)
    best = 10 * (9 * math.log(math.cosh(root - 1)) + root**2 / 2)
    distances, values = [float(np.linalg.norm(flat(params) - root))], [closure().item() - best]
    for _ in range(steps):
        optimizer.step(closure)
        with optimizer.answer():
            distances.append(float(np.linalg.norm(flat(params) - root)))
            values.append(closure().item() - best)
    return distances, values, distances[0]


def test_gradient_descent_shrinks_the_distance_at_every_step() -> None:
    distances, _, _ = gaps("gradient", 60)
    rate = constants("gradient", 1.0, 10.0).rate
    assert all(b <= rate * a + 1e-12 for a, b in itertools.pairwise(distances))


def test_nesterov_keeps_its_bound() -> None:
    """d'Aspremont, Scieur and Taylor (2021), corollary 4.15."""
    _, values, distance = gaps("nesterov", 80)
    first = values[0] + distance**2 / 2
    rate = constants("nesterov", 1.0, 10.0).rate ** 2
    assert all(gap <= rate**k * first + 1e-12 for k, gap in enumerate(values))


def test_triple_momentum_keeps_its_bound() -> None:
    """Van Scoy, Freeman and Lynch (2018), theorem 1, in the form of the PEPit library."""
    _, values, distance = gaps("triple_momentum", 60)
    rate = constants("triple_momentum", 1.0, 10.0).rate ** 2
    assert all(gap <= rate**k * 10 * 10 / 2 * distance**2 + 1e-12 for k, gap in enumerate(values))


def test_convex_nesterov_keeps_its_bound() -> None:
    """Beck and Teboulle (2009), theorem 4.4."""
    _, values, distance = gaps("nesterov_convex", 80)
    assert all(gap <= 2 * 10 * distance**2 / (k + 1) ** 2 for k, gap in enumerate(values) if k)


@pytest.mark.parametrize("form", LINEAR)
def test_measured_rate_is_that_of_the_quadratic(form: Form) -> None:
    """Where the slowest curvature alone is left, the certificate measures its factor."""
    _, optimizer, closure = parabola(
        np.array([1.0, 25.0]), np.array([1.0, 0.01]), form=form, mu=1.0, L=25.0
    )
    for _ in range(80):
        optimizer.step(closure)
    found = optimizer.certificate()
    c = constants(form, 1.0, 25.0)
    exact = 0.8 if form == "nesterov" else c.rate
    assert found.rate == c.rate and found.proved
    assert found.measured == pytest.approx(exact, rel=0.03)  # double roots: k times the power


# Constants that are not given ------------------------------------------------------------------


def test_first_step_without_curvature_is_a_probe_along_the_gradient() -> None:
    start = np.array([3.0, -4.0])
    x, optimizer, closure = parabola(np.array([2.0, 6.0]), start)
    optimizer.step(closure)
    move = x.detach().numpy() - start
    gradient = np.array([6.0, -24.0])
    np.testing.assert_allclose(move, -1e-3 * 5.0 * gradient / np.linalg.norm(gradient), rtol=1e-9)


def test_estimates_are_the_extreme_curvatures_of_the_moves() -> None:
    """By hand: keep every point and gradient, and take curvatures from neighbours."""
    params, closure = curve()
    optimizer = Accelerated(params.items(), form="nesterov", engine="eager")
    points = [flat(params)]
    for _ in range(15):  # further on, moves go under in rounding
        optimizer.step(closure)
        points.append(flat(params))
    seen: list[float] = []
    for a, b in itertools.pairwise(points[:-1]):  # the last point was not looked at
        move = b - a
        seen.append(float(move @ (slope(b) - slope(a)) / (move @ move)))
    found = optimizer.certificate()
    assert found.mu == pytest.approx(min(seen), rel=1e-6)
    assert found.smooth == pytest.approx(max(seen), rel=1e-6)
    assert 1.0 <= min(seen) < max(seen) <= 10.0
    assert not found.proved


@pytest.mark.parametrize(("form", "most"), [("nesterov", 1_000), ("nesterov_convex", 1_000)])
def test_nothing_given_is_nearly_as_good_on_a_quadratic(form: Form, most: int) -> None:
    start = np.random.default_rng(0).normal(size=200)
    x, optimizer, closure = parabola(CURVATURES, start, form=form)
    for _ in range(most):
        optimizer.step(closure)
    with optimizer.answer():
        assert float(x.detach().norm()) <= 1e-8 * np.linalg.norm(start)
    found = optimizer.certificate()
    assert found.smooth is not None and 500 < found.smooth <= 1e3 * (1 + 1e-9)
    assert found.mu is None or 1.0 - 1e-9 <= found.mu < 2.0


@pytest.mark.parametrize("form", LINEAR)
def test_one_dimension_is_learnt_by_one_probe(form: Form) -> None:
    """A parabola has one curvature; with mu = L every member jumps to the minimum."""
    x, optimizer, closure = parabola(np.array([4.0]), np.array([2.0]), form=form)
    for _ in range(3):
        optimizer.step(closure)
    assert abs(x.item()) < 1e-9


def test_clipped_gradients_teach_nothing() -> None:
    x, optimizer, closure = parabola(np.array([1.0, 9.0]), np.array([30.0, 30.0]), clip_norm=1.0)
    for _ in range(20):
        optimizer.step(closure)
    assert optimizer.certificate().smooth is None
    y, free, other = parabola(np.array([1.0, 9.0]), np.array([30.0, 30.0]), clip_norm=1e9)
    for _ in range(20):
        free.step(other)
    assert free.certificate().smooth == pytest.approx(9.0, rel=0.3)
    assert float(y.detach().norm()) < float(x.detach().norm())


def test_given_constants_are_kept() -> None:
    _, optimizer, closure = parabola(np.array([1.0, 9.0]), np.ones(2), form="nesterov", L=20.0)
    for _ in range(5):
        optimizer.step(closure)
    found = optimizer.certificate()
    assert found.smooth == 20.0 and found.mu is not None and 1.0 <= found.mu <= 9.0


def test_a_parameter_without_gradient_does_not_count_as_moving() -> None:
    """One that pauses keeps its last move in no memory: curvatures stay those of the others."""
    a, b = nn.Parameter(torch.ones(2).double()), nn.Parameter(torch.ones(2).double())
    optimizer = Accelerated([a, b], form="gradient", engine="eager")
    for step in range(12):
        used = (a, b) if step % 3 else (a,)
        optimizer.step(lambda used=used: torch.stack([2 * (p * p).sum() for p in used]).sum())
    found = optimizer.certificate()
    assert found.mu is not None and found.smooth is not None
    assert found.smooth <= 4.0 * (1 + 1e-9)


# Words and numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_asks_for_one_gradient_a_step(form: Form) -> None:
    params, closure = curve()
    runs = 0

    def counted() -> Tensor:
        nonlocal runs
        runs += 1
        return closure()

    optimizer = Accelerated(params.items(), form=form, engine="eager")
    for step in range(1, 6):
        optimizer.step(counted)
        optimizer.certificate()
        calls = optimizer.calls.to_dict()
        assert runs == step
        assert calls.pop("seconds") > 0
        assert {name: count for name, count in calls.items() if count} == {"grads": step}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"form": "triple_momentum", "mu": 1.0, "L": 2.0}, {"difference"}),
        ({"form": "nesterov_convex", "L": 2.0}, {"difference"}),
        ({"form": "nesterov", "L": 2.0}, {"difference", "move"}),
        ({}, {"difference", "move"}),
    ],
)
def test_keeps_one_vector_and_one_more_for_estimates(
    settings: dict[str, Any], kept: set[str]
) -> None:
    params, closure = curve()
    optimizer = Accelerated(params.items(), engine="eager", **settings)
    optimizer.step(closure)
    for p in params.values():
        assert set(optimizer.state[p]) == {"step", *kept}


@pytest.mark.parametrize("settings", [{}, {"form": "triple_momentum", "mu": 1.0, "L": 10.0}])
def test_goes_on_from_a_checkpoint(settings: dict[str, Any]) -> None:
    """Momentum, estimates and the certificate's record are those of the saved run."""
    ours, closure = curve()
    first = Accelerated(ours.items(), engine="eager", **settings)
    for _ in range(15):
        first.step(closure)
    theirs, other = curve()
    for name, p in theirs.items():
        p.data.copy_(ours[name].data)
    second = Accelerated(theirs.items(), engine="eager", **settings)
    second.load_state_dict(first.state_dict())
    for _ in range(15):
        first.step(closure)
        second.step(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert first.certificate() == second.certificate()


def test_record_of_a_long_run_stays_short() -> None:
    _, optimizer, closure = parabola(
        np.array([1.0, 9.0]), np.ones(2), form="gradient", mu=1e-3, L=9.0
    )
    for _ in range(1_500):
        optimizer.step(closure)
    saved = optimizer.extra_state()
    assert len(saved["record"]) < 512 and saved["every"] == 4
    assert optimizer.certificate().steps == 1_500


def test_certificate_before_the_first_step_says_so() -> None:
    text = str(Accelerated(curve()[0].items()).certificate())
    assert "L = none (not proved" in text and "measured none" in text


@pytest.mark.parametrize(
    "settings", [{"lr": 0.5}, {"clip_norm": 1.0}, {"cautious": True}, {"L": None}]
)
def test_other_settings_than_the_theorem_prove_nothing(settings: dict[str, Any]) -> None:
    theorem: dict[str, Any] = {"form": "nesterov_convex", "L": 10.0}
    params = curve()[0]
    assert Accelerated(params.items(), **theorem).certificate().proved
    assert not Accelerated(params.items(), **{**theorem, **settings}).certificate().proved


@pytest.mark.parametrize(
    "settings",
    [
        {"form": "newton"},
        {"mu": 0.0},
        {"L": -1.0},
        {"mu": 2.0, "L": 1.0},
        {"restart": 1},
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(HyperError, match=next(iter(settings))):
        Accelerated([nn.Parameter(torch.ones(1))], **settings)


def test_groups_share_one_member_of_the_family() -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    Accelerated([{"params": [a], "lr": 0.5}, {"params": [b]}])
    with pytest.raises(HyperError, match=r"L: expected the same in all groups, 1\.0, got 2\.0"):
        Accelerated([{"params": [a], "L": 1.0}, {"params": [b], "L": 2.0}])


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = Accelerated
    reference_settings = (
        *({"form": form, "mu": 1.0, "L": 90.0, "lr": 0.9} for form in LINEAR),
        {"form": "nesterov_convex", "L": 60.0, "restart": False},
        {"form": "nesterov_convex", "L": 60.0, "lr": 0.8, "restart": True},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        """The recursions in their last two points; the constants by curvature, from the papers."""
        smooth, form = options["L"], options["form"]
        mu = options["mu"] or smooth  # not used by the convex form
        q = math.sqrt(mu / smooth)
        r = 1 - q
        alpha, beta, gamma, delta = {
            "gradient": (2 / (smooth + mu), 0.0, 0.0, 0.0),
            "heavy_ball": (4 / (smooth**0.5 + mu**0.5) ** 2, (r / (1 + q)) ** 2, 0.0, 0.0),
            "nesterov": (1 / smooth, r / (1 + q), r / (1 + q), 0.0),
            "triple_momentum": (
                (1 + r) / smooth,
                r**2 / (2 - r),
                r**2 / ((1 + r) * (2 - r)),
                r**2 / (1 - r**2),
            ),
            "nesterov_convex": (1 / smooth, 0.0, 0.0, 0.0),
        }[form]
        alpha *= options["lr"]
        now = before = world.joined(values)
        t = 1.0
        for _ in range(steps):
            y = (1 + gamma) * now - gamma * before
            gradient = world.joined(world.gradient(world.parted(y)))
            if form == "nesterov_convex":
                beta = gamma
            now, before = (1 + beta) * now - beta * before - alpha * gradient, now
            if form == "nesterov_convex":
                after = (1 + math.sqrt(1 + 4 * t * t)) / 2
                uphill = options["restart"] and beta and float(gradient @ (now - before)) > 0
                gamma, t = (0.0, 1.0) if uphill else ((t - 1) / after, after)
        return world.parted((1 + delta) * now - delta * before)
