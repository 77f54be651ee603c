"""Estimates from differences: their statistics, their cost, and weights that stay as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder import MeZO, ZerothOrder
from anyorder.estimators.differences import Differences, blocks_of, sample
from anyorder.hyper import HyperError
from anyorder.optimizer import Optimizer
from anyorder.points.composed import vectors
from anyorder.rules.descent import DESCENT

LAWS = ("normal", "rademacher", "low_rank", "sphere", "coordinate")


class Estimating(Optimizer):
    """Any rule with the estimator, and nothing else."""

    order = 0
    estimator = Differences("eps", "directions", "law", "difference")
    rule = DESCENT


def quadratic(n: int = 40) -> tuple[dict[str, nn.Parameter], Callable[[], Tensor], Tensor]:
    """A quadratic of a matrix and a vector, in float64, with its gradient."""
    generator = torch.Generator().manual_seed(1)
    params = {
        "matrix": nn.Parameter(torch.randn(n // 2, 2, generator=generator, dtype=torch.float64)),
        "vector": nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64)),
    }
    slope = torch.randn(2 * n, generator=generator, dtype=torch.float64)

    def closure() -> Tensor:
        x = torch.cat([p.reshape(-1) for p in params.values()])
        return slope @ x + 0.05 * x @ x

    x = torch.cat([p.detach().reshape(-1) for p in params.values()])
    return params, closure, slope + 0.1 * x


def estimate(optimizer: Any, closure: Any) -> Tensor:
    """The estimate of one step, flat."""
    _, found, names = optimizer.estimator.estimate(optimizer, optimizer.oracle(closure))
    named = {name: p for name, p in optimizer.named_params().items() if name in names}
    made = vectors(found, named, optimizer.engine)
    return torch.cat([made[n].reshape(-1) for n in named])


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


# Statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS[:4])
def test_estimates_are_unbiased(law: str) -> None:
    """The error of a mean over q directions falls like 1 / sqrt(q), in every entry."""
    params, closure, grad = quadratic(20)
    q = 300
    optimizer = ZerothOrder(params.items(), law=law, directions=q, engine="eager")
    found = estimate(optimizer, closure)
    # An entry's variance is |g|^2 + g_i^2 for normal ones, at most three times for products.
    spread = math.sqrt(float(grad.square().sum()) * (3 if law == "low_rank" else 1))
    assert float((found - grad).abs().max()) < 5 * spread / math.sqrt(q)
    assert float(found @ grad / (grad @ grad)) == pytest.approx(1.0, abs=5 / math.sqrt(q))


@pytest.mark.parametrize("q", [8, 80])
def test_cosine_to_the_gradient_is_that_of_the_theory(q: int) -> None:
    """For q Gaussian directions in d dimensions it is about sqrt(q / (q + d + 1))."""
    found: list[float] = []
    params, closure, grad = quadratic(40)
    for seed in range(10):
        optimizer = MeZO(params.items(), directions=q, seed=seed, engine="eager")
        found.append(cosine(estimate(optimizer, closure), grad))
    theory = math.sqrt(q / (q + grad.numel() + 1))
    assert np.mean(found) == pytest.approx(theory, abs=5 * np.std(found) / math.sqrt(10) + 0.01)
    assert cosine(estimate(optimizer, lambda: -closure()), grad) < 0


@pytest.mark.parametrize("difference", ["central", "forward"])
def test_all_coordinates_are_the_gradient(difference: str) -> None:
    params, closure, grad = quadratic(20)
    optimizer = ZerothOrder(
        params.items(), law="coordinate", directions=10**6, difference=difference, engine="eager"
    )
    found = estimate(optimizer, closure)
    assert cosine(found, grad) > 0.999999
    # The quadratic part shifts one-sided slopes by eps times half the curvature.
    bias = 0.0 if difference == "central" else 1e-3 * 0.05
    torch.testing.assert_close(found, grad + bias, rtol=1e-8, atol=1e-8)
    assert optimizer.calls.values == (2 * 40 if difference == "central" else 41)


def test_some_coordinates_are_entries_of_the_gradient_others_are_zero() -> None:
    params, closure, grad = quadratic(20)
    optimizer = ZerothOrder(params.items(), law="coordinate", directions=6, engine="eager")
    found = estimate(optimizer, closure)
    chosen = found != 0
    assert int(chosen.sum()) == 6
    torch.testing.assert_close(found[chosen], grad[chosen], rtol=1e-8, atol=1e-8)
    optimizer.steps = 1
    assert not torch.equal(estimate(optimizer, closure) != 0, chosen)


def test_samples_are_different_numbers_and_each_equally_often() -> None:
    counts = np.zeros(11)
    for step in range(3000):
        found = sample(f"{step}", 11, 4)
        assert found == sorted(set(found)) and len(found) == 4
        counts[found] += 1
    expected = 3000 * 4 / 11
    assert float(np.abs(counts - expected).max()) < 5 * math.sqrt(expected)
    assert sample("a", 5, 5) == list(range(5)) and sample("a", 10**12, 3) != sample("b", 10**12, 3)


def test_sphere_perturbs_by_eps_and_multiplies_by_the_dimension() -> None:
    x = nn.Parameter(torch.zeros(50, dtype=torch.float64))
    seen: list[Tensor] = []

    def closure() -> Tensor:
        seen.append(x * 1.0)
        return x[0] + 0.0 * x.sum()

    optimizer = ZerothOrder([("x", x)], law="sphere", eps=0.5, engine="eager")
    found = estimate(optimizer, closure)
    u = (seen[0] - seen[1]) / (2 * 0.5)
    assert float(seen[0].norm()) == pytest.approx(0.5, rel=1e-6)
    torch.testing.assert_close(found, 50 * u[0] * u, rtol=1e-5, atol=1e-7)


def test_scaling_perturbs_small_weights_more_and_is_unbiased() -> None:
    params, closure, _ = quadratic(20)
    with torch.no_grad():
        params["matrix"].mul_(100.0)
        sizes = {name: p.square().mean().sqrt().item() for name, p in params.items()}
    seen: list[dict[str, Tensor]] = []

    def looking() -> Tensor:
        seen.append({name: p * 1.0 for name, p in params.items()})
        return closure()

    q = 300
    scaled, plain = (
        MeZO(params.items(), scaling=scaling, directions=q, engine="eager")
        for scaling in ("weights", "none")
    )
    found = estimate(scaled, looking)
    for name, p in params.items():  # the perturbation is z eps / c
        shifts = torch.cat([(pass_[name] - p.detach()).reshape(-1) for pass_ in seen])
        assert float(shifts.std()) == pytest.approx(1e-3 / sizes[name], rel=0.1)
    grad = torch.cat([g.reshape(-1) for g in torch.autograd.grad(closure(), list(params.values()))])
    small = slice(params["matrix"].numel(), None)
    error, before = (
        float((e[small] - grad[small]).norm()) for e in (found, estimate(plain, closure))
    )
    # Large weights have large gradients here: less noise in the others comes from them.
    assert error < 0.1 * before
    assert error < 5 * float(grad[small].norm()) * math.sqrt(20 / q) + 0.05 * before


# Cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("difference", "values"), [("central", 10), ("forward", 6)])
def test_several_directions_count_exactly(law: str, difference: str, values: int) -> None:
    params, closure, _ = quadratic(20)
    runs = 0

    def counted() -> Tensor:
        nonlocal runs
        runs += 1
        return closure()

    optimizer = ZerothOrder(
        params.items(), law=law, difference=difference, directions=5, engine="eager"
    )
    first = optimizer.step(counted)
    assert optimizer.calls.values == runs == values
    if difference == "forward":
        assert first.item() == quadratic(20)[1]().item()  # the loss at the current point


def test_a_loss_that_is_not_finite_at_one_side_skips_the_step_and_counts() -> None:
    params, closure, _ = quadratic(20)
    before = {name: p.detach().clone() for name, p in params.items()}
    for difference in ("central", "forward"):
        optimizer = ZerothOrder(
            params.items(), lr=1.0, difference=difference, nonfinite="skip", engine="eager"
        )
        runs = 0

        def closure_with_a_hole() -> Tensor:
            nonlocal runs
            runs += 1
            return closure() * (math.nan if runs == 2 else 1.0)

        optimizer.step(closure_with_a_hole)
        assert (optimizer.calls.skipped, optimizer.steps) == (1, 0)
        assert optimizer.calls.values == runs == 2
        assert all(torch.equal(p, before[name]) for name, p in params.items())
        optimizer.step(closure_with_a_hole)
        assert (optimizer.calls.skipped, optimizer.steps) == (1, 1)
        assert not all(torch.equal(p, before[name]) for name, p in params.items())
        for name, p in params.items():
            p.data.copy_(before[name])


# Weights --------------------------------------------------------------------------------------

CHOICES: dict[str, dict[str, Any]] = {
    **{law: {"law": law, "directions": 2} for law in LAWS},
    "forward": {"difference": "forward"},
    "small": {"mask": "small"},
    "random": {"mask": "random"},
    "layers": {"blocks": "layers"},
    "jacobi": {"blocks": "layers", "sweep": "jacobi"},
    "scaled": {"scaling": "weights"},
}


def network(dtype: torch.dtype) -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(80, 60), nn.Tanh(), nn.Linear(60, 3)).to(dtype)
    x = torch.randn(4, 80).to(dtype)
    return model, lambda: (model(x).float() ** 2).mean()


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_do_not_drift(choice: str, dtype: torch.dtype) -> None:
    """Nor after an exception in the closure."""
    model, closure = network(dtype)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = ZerothOrder(model, lr=0.0, eps=0.05, engine="eager", **CHOICES[choice])
    for _ in range(3):
        optimizer.step(closure)
    runs = 0

    def raising() -> Tensor:
        nonlocal runs
        runs += 1
        loss = closure()
        if runs == 2:
            raise KeyboardInterrupt
        return loss

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(raising)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("choice", ["sphere", "small"])
def test_a_thousand_evaluations_drift_by_nothing(choice: str) -> None:
    x = nn.Parameter(torch.randn(50, generator=torch.Generator().manual_seed(0)).bfloat16())
    before = x.detach().clone()
    optimizer = ZerothOrder([x], lr=0.0, eps=0.5, engine="eager", **CHOICES[choice])
    seen = {optimizer.step(lambda: (x.float() ** 2).mean()).item() for _ in range(250)}
    optimizer = MeZO([x], lr=0.0, eps=0.5, directions=250, scaling="weights", engine="eager")
    optimizer.step(lambda: (x.float() ** 2).mean())
    assert len(seen) > 200 and torch.equal(x, before)


def test_tied_weights_are_perturbed_once() -> None:
    """Both uses see the same value, and the move is the slope of the whole."""
    torch.manual_seed(0)
    table, head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
    head.weight = table.weight
    model = nn.Sequential(table, nn.Tanh(), head)
    seen: list[tuple[Tensor, Tensor]] = []

    def closure() -> Tensor:
        seen.append((table.weight * 1.0, head.weight * 1.0))
        return model(torch.arange(11)).square().mean()

    for choice in ("sphere", "small", "layers"):
        optimizer = ZerothOrder(model, lr=0.0, eps=0.1, engine="eager", **CHOICES[choice])
        optimizer.step(closure)
        assert len(optimizer.named_params()) == 1
        assert all(torch.equal(a, b) for a, b in seen)
        assert not torch.equal(seen[-1][0], seen[-2][0])


def test_batch_norm_goes_on_as_after_one_evaluation() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = ZerothOrder(model, directions=3, law="sphere", engine="eager")
    optimizer.step(lambda: model(torch.randn(8, 4)).pow(3).mean())
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 1


# Masks and blocks -----------------------------------------------------------------------------


def test_the_mask_is_that_of_unperturbed_weights_in_each_pass_and_in_the_update() -> None:
    """Perturbed weights cross the threshold; no entry enters or leaves for that."""
    x = nn.Parameter(torch.linspace(0.1, 2.0, 20))
    passes: list[Tensor] = []

    def closure() -> Tensor:
        passes.append(x * 1.0)
        return (x**2).sum()

    optimizer = ZerothOrder(
        [("x", x)], lr=1e-3, eps=3.0, directions=2, mask="small", sparsity=0.5, engine="eager"
    )
    for step in range(3):
        before, limit = x.detach().clone(), 1.0 + 1e-6
        wanted = before.abs() <= limit
        passes.clear()
        optimizer.step(closure)
        if step == 0:
            assert optimizer.thresholds == {"x": pytest.approx(1.0)} and int(wanted.sum()) == 10
        crossed = torch.stack([p.abs() <= limit for p in passes])
        assert not torch.equal(crossed[0], wanted)  # the pitfall is there
        assert all(torch.equal(p != before, wanted) for p in passes)
        assert torch.equal(x != before, wanted)


def test_random_masks_are_one_in_a_step_and_another_in_the_next() -> None:
    x = nn.Parameter(torch.ones(20_000))
    passes: list[Tensor] = []

    def closure() -> Tensor:
        passes.append((x * 1.0) != 1.0)
        return x.sum()

    optimizer = ZerothOrder([x], lr=0.0, mask="random", sparsity=0.9, directions=2, engine="eager")
    optimizer.step(closure)
    optimizer.step(closure)
    assert all(torch.equal(p, passes[0]) for p in passes[:4])
    assert not torch.equal(passes[0], passes[4])
    share = float(passes[0].float().mean())
    assert abs(share - 0.1) < 5 * math.sqrt(0.09 / 20_000)


NAMES = ["embed.weight", "layers.0.q.weight", "layers.0.q.bias", "layers.11.q.weight", "scale"]


def test_blocks_are_layers_or_modules() -> None:
    assert list(blocks_of(NAMES, "layers").items()) == [
        ("embed", NAMES[:1]), ("layers.0", NAMES[1:3]), ("layers.11", NAMES[3:4]), ("", NAMES[4:]),
    ]  # fmt: skip
    assert list(blocks_of(NAMES, "modules")) == ["embed", "layers.0.q", "layers.11.q", ""]


@pytest.mark.parametrize("sweep", [None, "gauss-seidel", "jacobi"])
def test_only_blocks_of_a_step_are_perturbed_and_moved(sweep: str | None) -> None:
    model, closure = network(torch.float32)
    passes: list[set[str]] = []
    now = {name: p.detach().clone() for name, p in model.named_parameters()}

    def looking() -> Tensor:
        differs = (n for n, p in model.named_parameters() if not torch.equal(p * 1.0, now[n]))
        passes.append({name.split(".")[0] for name in differs})
        return closure()

    optimizer = ZerothOrder(
        model, lr=1e-3, blocks="layers", sweep=sweep, rule="adamw", engine="eager"
    )
    for step in range(2):
        now = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.step(looking)
        moved = {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, now[n])}
        assert moved == ({"0", "2"} if sweep == "jacobi" else {"02"[step]})
    order = [{"0"}] * 2 + [{"2"}] * 2
    assert passes == (order * 2 if sweep == "jacobi" else order)
    steps = {entry["step"] for entry in optimizer.state.values()}
    assert steps == ({2} if sweep == "jacobi" else {1})


# Any rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
def test_estimator_and_rule_are_a_method_without_more(law: str) -> None:
    """The whole estimate at once and one portion after the other move alike."""
    ends: list[list[Tensor]] = []
    for kind in (Estimating, ZerothOrder):
        params, closure, _ = quadratic(20)
        optimizer = kind(params.items(), lr=1e-2, law=law, directions=3, engine="eager")
        for _ in range(3):
            optimizer.step(closure)
        ends.append([p.detach() for p in params.values()])
    assert all(map(torch.equal, *ends))


def test_a_norm_is_clipped_over_all_portions() -> None:
    moves: list[Tensor] = []
    for limit in (None, 0.5, 1e9):
        params, closure, _ = quadratic(20)
        before = torch.cat([p.detach().reshape(-1) for p in params.values()])
        ZerothOrder(params.items(), lr=1.0, clip_norm=limit, engine="eager").step(closure)
        moves.append(before - torch.cat([p.detach().reshape(-1) for p in params.values()]))
    assert torch.allclose(moves[0], moves[2]) and float(moves[0].norm()) > 1
    assert float(moves[1].norm()) == pytest.approx(0.5, rel=1e-5)
    assert cosine(moves[0], moves[1]) == pytest.approx(1.0)


# Options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": 0.5}, "sparsity: only used with mask"),
        ({"rank": 2}, "rank: only used with law = 'low_rank'"),
        ({"rank": 1.5, "law": "low_rank"}, "rank: expected a whole number"),
        ({"sweep": "jacobi"}, "sweep: only used with blocks"),
        ({"scaling": "weights", "law": "sphere"}, "scaling: expected law"),
        ({"law": "cauchy"}, "law: expected one of"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], words: str) -> None:
    x = nn.Parameter(torch.ones(3))
    with pytest.raises(HyperError, match=words):
        ZerothOrder([x], **options)
    optimizer = ZerothOrder([x])
    optimizer.param_groups[0].update(options)
    with pytest.raises(HyperError, match=words):
        optimizer.step(lambda: x.sum())
    assert x.tolist() == [1.0] * 3


def test_a_group_with_another_direction_is_refused() -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    with pytest.raises(HyperError, match="law: expected 'normal' as in the first group"):
        ZerothOrder([{"params": [a]}, {"params": [b], "law": "sphere"}])
