"""DeepZero: its formulas by hand, exact counts, the wounds of the published code, two processes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods._coordinates import drawn
from anyorder.methods.deepzero import DeepZero
from anyorder.oracle.gradients import NonFiniteError
from anyorder.testing import MethodContract, Values, World

PLAIN: dict[str, Any] = {"momentum": 0.0, "weight_decay": 0.0, "engine": "eager"}


def network(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(2)
    middle = nn.BatchNorm1d(7) if norm else nn.Identity()
    return nn.Sequential(
        nn.Linear(5, 7), middle, nn.Tanh(), nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 3)
    )


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(12, 5, generator=generator), torch.arange(12) % 3


def closure_of(model: nn.Module) -> Any:
    x, y = batch()
    return lambda: F.cross_entropy(model(x), y)


def gradient(model: nn.Module) -> Tensor:
    found = torch.autograd.grad(closure_of(model)(), list(model.parameters()))
    return torch.cat([g.reshape(-1) for g in found])


def estimate(model: nn.Module, **options: Any) -> tuple[Tensor, DeepZero]:
    """The estimate of one step, read from what it moved."""
    moved = copy.deepcopy(model).double()
    x, y = batch()
    before = torch.cat([p.detach().reshape(-1).clone() for p in moved.parameters()])
    optimizer = DeepZero(moved, lr=1.0, **{**PLAIN, **options})
    optimizer.step(lambda: F.cross_entropy(moved(x.double()), y))
    after = torch.cat([p.detach().reshape(-1) for p in moved.parameters()])
    return before - after, optimizer


def cosine(a: Tensor, b: Tensor) -> float:
    return F.cosine_similarity(a.double(), b.double(), dim=0).item()


# The estimate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [False, True])
def test_all_coordinates_give_the_gradient(norm: bool) -> None:
    """Batch norm in training mode sees the statistics of each perturbed batch, as the gradient."""
    model = network(norm)
    found, optimizer = estimate(model, density=1.0)
    assert cosine(found, gradient(model)) > 0.9999
    assert optimizer.calls.values == sum(p.numel() for p in model.parameters()) + 1


def test_the_active_coordinates_hold_the_gradient_and_all_others_zero() -> None:
    model = network()
    found, optimizer = estimate(model, density=0.3, ratios="uniform")
    expected = gradient(model).double()
    active = found != 0
    assert cosine(found, torch.where(active, expected, 0.0)) > 0.9999
    # 0.3 of 35, 28 and 12, and all of 7 + 4 + 3 biases
    assert int(active.sum()) == 10 + 8 + 4 + 14
    assert optimizer.calls.values == 10 + 8 + 4 + 14 + 1


def test_scores_are_counted_once_and_kept() -> None:
    model = network()
    options: dict[str, Any] = {"density": 0.3, "score_directions": 9, "redraw": 2}
    optimizer = DeepZero(model, **options)
    optimizer.step(closure_of(model))
    first = optimizer.calls.values
    count = first - 1 - (2 * 9 + 1)
    for _ in range(3):
        optimizer.step(closure_of(model))
    assert optimizer.calls.values == first + 3 * (count + 1)
    kept = dict(optimizer._shares)
    again = DeepZero(model, **options)
    again.load_state_dict(optimizer.state_dict())
    assert again._shares == kept
    again.step(closure_of(model))
    assert again.calls.values == optimizer.calls.values + count + 1


def test_the_curvature_product_is_that_of_the_hessian() -> None:
    """Two estimates with cosine sqrt(q / (q + d + 1)); a square has exact second differences."""
    torch.manual_seed(0)
    d, q = 12, 600
    root = torch.randn(d, d, dtype=torch.float64)
    hessian = root @ root.T / d
    x = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
    closure = lambda: x.reshape(-1) @ hessian @ x.reshape(-1) / 2  # noqa: E731
    optimizer = DeepZero([("x", x)], score_directions=q, engine="eager")
    oracle = optimizer.oracle(closure)
    with torch.no_grad():
        base = oracle.value()
        product = optimizer._curvature(oracle, {"x": x}, base)["x"]
    exact = hessian @ (hessian @ x.detach().reshape(-1))
    assert cosine(product.reshape(-1), exact) > q / (q + d + 1) - 0.02
    assert (product.norm() / exact.norm()).item() == pytest.approx(1.0, rel=0.2)


def test_random_estimates_do_not_depend_on_the_size_of_the_difference() -> None:
    """The published estimator forgets to divide by mu, so it is proportional to mu."""
    x = nn.Parameter(torch.ones(3, 4, dtype=torch.float64))
    closure = lambda: (x * torch.arange(12.0, dtype=torch.float64).view(3, 4)).sum() ** 2  # noqa: E731
    products = []
    for eps in (1e-4, 1e-2):
        optimizer = DeepZero([("x", x)], eps=eps, score_directions=20, engine="eager")
        oracle = optimizer.oracle(closure)
        with torch.no_grad():
            products.append(optimizer._curvature(oracle, {"x": x}, oracle.value())["x"])
    torch.testing.assert_close(products[0], products[1], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_never_drift(dtype: torch.dtype) -> None:
    """The published code backs weights up with an aliased dict, so its base point walks away."""
    model = network().to(dtype)
    before = [p.detach().clone() for p in model.parameters()]
    x, y = batch()
    optimizer = DeepZero(model, lr=0.0, density=0.99, score_directions=20, engine="eager")
    for _ in range(3):
        optimizer.step(lambda: F.cross_entropy(model(x.to(dtype)).float(), y))
    assert optimizer.calls.values > 300
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_every_element_is_evaluated_at_the_clean_weights_of_all_others() -> None:
    model = network()
    start = torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])
    seen: list[Tensor] = []
    inner = closure_of(model)

    def closure() -> Tensor:
        now = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
        seen.append((now != start).nonzero().reshape(-1))
        return inner()

    DeepZero(model, density=1.0, engine="eager").step(closure)
    assert [place.tolist() for place in seen] == [[], *([i] for i in range(len(start)))]


# Reuse ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [False, True])
def test_reuse_changes_no_bit_and_saves_blocks(norm: bool) -> None:
    results: list[list[Tensor]] = []
    for blocks in (None, []):
        model = network(norm)
        optimizer = DeepZero(model, blocks=blocks, density=0.5, ratios="uniform", engine="eager")
        for _ in range(3):
            optimizer.step(closure_of(model))
        results.append([t.detach().clone() for t in model.state_dict().values()])
        text = optimizer.explain()
        if blocks is None:
            assert "0.weight  7x5 float32  18 coordinates, computed from block 0 on" in text
            assert "5.bias  3 float32  3 coordinates, computed from block 5 on" in text
        else:
            assert text.count("whole forward passes: no blocks are known") == 6 + 2 * norm
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_dropout_masks_are_the_same_with_reuse() -> None:
    results: list[list[Tensor]] = []
    for blocks in (None, []):
        torch.manual_seed(2)
        model = nn.Sequential(
            nn.Linear(5, 9), nn.Dropout(0.5), nn.Linear(9, 6), nn.Dropout(0.5), nn.Linear(6, 3)
        )
        optimizer = DeepZero(model, blocks=blocks, density=1.0, engine="eager")
        torch.manual_seed(9)
        for _ in range(3):
            optimizer.step(closure_of(model))
        results.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_micro_batches_are_evaluated_as_a_whole() -> None:
    model = network()
    x, y = batch()
    closures = [
        lambda a=a, b=b: F.cross_entropy(model(a), b) for a, b in ((x[:6], y[:6]), (x[6:], y[6:]))
    ]
    other = network()
    DeepZero(model, density=1.0, engine="eager").step(closures)
    DeepZero(other, density=1.0, engine="eager").step(closure_of(other))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# Sets and options -------------------------------------------------------------------------------


def test_another_set_is_drawn_after_some_steps() -> None:
    model = network()
    optimizer = DeepZero(model, density=0.3, ratios="uniform", redraw=2, lr=0.0, engine="eager")
    sets = []
    for _ in range(4):
        optimizer.step(closure_of(model))
        sets.append(optimizer._plan[1])
    assert sets[0] == sets[1] != sets[2] == sets[3]


def test_shares_of_layers_follow_the_scores() -> None:
    """A layer whose curvature is far larger takes all active coordinates but one."""
    params = {n: nn.Parameter(torch.full((2, 4), 1.0, dtype=torch.float64)) for n in ("a", "b")}
    closure = lambda: 100 * (params["a"] ** 2).sum() + 1e-3 * (params["b"] ** 2).sum()  # noqa: E731
    for ratios in ("magnitude", "signed"):
        options: dict[str, Any] = {"density": 0.25, "score_directions": 200, "ratios": ratios}
        optimizer = DeepZero(params.items(), lr=0.0, engine="eager", **options)
        optimizer.step(closure)
        assert optimizer._shares == {"a": 0.5, "b": 0.0}, ratios
        assert len(optimizer._plan[1]) == 4 + 1


@pytest.mark.parametrize(
    "options",
    [{"density": 0.0}, {"density": 1.1}, {"eps": 0.0}, {"redraw": 0}, {"ratios": "snip"},
     {"nesterov": True, "momentum": 0.0}],
)  # fmt: skip
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(HyperError, match=next(iter(options))):
        DeepZero(network(), **options)


@pytest.mark.parametrize("fatal", [1, 2, 30])
def test_a_value_that_is_not_finite_changes_nothing(fatal: int) -> None:
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    runs, inner = 0, closure_of(model)

    def closure() -> Tensor:
        nonlocal runs
        runs += 1
        return inner() * (float("nan") if runs == fatal else 1.0)

    optimizer = DeepZero(model, density=1.0, engine="eager")
    with pytest.raises(NonFiniteError):
        optimizer.step(closure)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    runs, optimizer.nonfinite = 0, "skip"
    optimizer.step(closure)
    assert optimizer.calls.skipped == 1
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


# Two processes ----------------------------------------------------------------------------------


def _work(rank: int, file: str, found: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    out: dict[str, Any] = {}
    groups: dict[str, Any] = {"both": dist.group.WORLD, "alone": None}
    for ratios, (who, group) in itertools.product(("magnitude", "uniform"), groups.items()):
        model = network(norm=True)
        options: dict[str, Any] = {"density": 0.5, "score_directions": 7, "redraw": 2}
        optimizer = DeepZero(model, ratios=ratios, process_group=group, engine="eager", **options)
        for _ in range(3):
            optimizer.step(closure_of(model))
        weights = [t.clone() for t in model.state_dict().values()]
        out[f"{ratios} {who}"] = weights, optimizer.calls.values
    optimizer.process_group = dist.group.WORLD
    inner = closure_of(model)
    before = [p.detach().clone() for p in model.parameters()]
    try:
        optimizer.step(lambda: inner() * (float("nan") if rank == 1 else 1.0))
    except NonFiniteError as error:
        out["error"] = str(error)
    out["unchanged"] = all(
        torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)
    )
    model = network()
    inner, group = closure_of(model), dist.group.WORLD
    optimizer = DeepZero(model, nonfinite="skip", process_group=group, engine="eager", **options)
    for step in range(4):  # one process fails in steps with and without a plan
        factor = float("nan") if (rank, step) in ((1, 0), (0, 2)) else 1.0
        optimizer.step(lambda f=factor: inner() * f)
    out["after"] = [p.detach().clone() for p in model.parameters()]
    out["skipped"] = optimizer.calls.skipped, optimizer.steps
    found[rank] = out
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(in_two_processes: Any) -> Any:
    """What the two processes found."""
    return in_two_processes(_work)


@pytest.mark.parametrize("ratios", ["magnitude", "uniform"])
def test_two_processes_move_as_one_bit_for_bit(both: Any, ratios: str) -> None:
    alone, whole = both[0][f"{ratios} alone"]
    for rank in (0, 1):
        weights = both[rank][f"{ratios} both"][0]
        assert all(torch.equal(a, b) for a, b in zip(alone, weights, strict=True))
    # Each evaluates the base point (and the scores), and together all coordinates.
    scored = 15 if ratios == "magnitude" else 0
    values = [both[rank][f"{ratios} both"][1] for rank in (0, 1)]
    assert sum(values) == whole + 3 + scored
    assert max(values) < 0.8 * whole


def test_a_loss_that_is_not_finite_in_one_process_stops_both(both: Any) -> None:
    assert both[0]["unchanged"] and both[1]["unchanged"]
    assert "another process" in both[0]["error"]
    assert "no parameter was changed" in both[1]["error"]
    assert both[0]["skipped"] == both[1]["skipped"] == (2, 2)
    pairs = zip(both[0]["after"], both[1]["after"], strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


# The contract -----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = DeepZero
    options: ClassVar[dict[str, Any]] = {"ratios": "uniform", "density": 0.02}
    half: ClassVar[dict[str, Any]] = {"eps": 0.3}
    reference_settings = (
        {},
        {"lr": 1e-3, "density": 1.0, "momentum": 0.5, "eps": 0.1, "nesterov": True},
        {"lr": 1e-3, "redraw": 3, "seed": 4, "weight_decay": 0.3, "dampening": 0.2},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        """Forward differences at the active coordinates, then SGD with momentum."""
        x = {name: np.array(value) for name, value in values.items()}
        velocity = {name: np.zeros_like(value) for name, value in x.items()}
        for step in range(steps):
            base = world.value(x)
            for name, grad in self._differences(x, base, world, step, options).items():
                g = grad + options["weight_decay"] * x[name]
                take = 1.0 if step == 0 else 1.0 - options["dampening"]
                velocity[name] = options["momentum"] * velocity[name] + take * g
                ahead = g + options["momentum"] * velocity[name]
                x[name] = x[name] - options["lr"] * (
                    ahead if options["nesterov"] else velocity[name]
                )
        return x

    def _differences(
        self, x: Values, base: float, world: World, step: int, options: Mapping[str, Any]
    ) -> Values:
        found: Values = {}
        for name, value in x.items():
            share = options["density"] if value.ndim > 1 else 1.0
            draw = step // options["redraw"]
            found[name] = np.zeros(value.size)
            for index in drawn(options["seed"], draw, name, value.size, share):
                point = value.copy().reshape(-1)
                point[index] += options["eps"]
                moved = world.value({**x, name: point.reshape(value.shape)})
                found[name][index] = (moved - base) / options["eps"]
            found[name] = found[name].reshape(value.shape)
        return found
