"""The oracle: right answers, exact counts, budgets before the question, and a world left alone."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from anyorder import AdaHessian, AdamW, MeZO
from anyorder.engine import Engine
from anyorder.linalg.hutchinson import diagonal
from anyorder.oracle import ClosureOracle
from anyorder.oracle.closure_oracle import Learned
from anyorder.oracle.closures import ClosureError, Composite, RankingError
from anyorder.oracle.gradients import NonFiniteError, SkipStep
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls
from anyorder.oracle.second_derivatives import SecondDerivativeError
from anyorder.points.directions import Dense, Seeded, Shift, _few, _pack


def quadratic() -> tuple[Tensor, nn.Parameter, Callable[[], Tensor]]:
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    x = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    return matrix, x, lambda: x @ matrix @ x / 2


def along(*entries: float) -> Dense:
    return Dense({"x": torch.tensor(entries, dtype=torch.float64)})


def test_answers_have_their_closed_forms() -> None:
    matrix, x, closure = quadratic()
    oracle = ClosureOracle(closure, {"x": x})
    assert torch.equal(oracle.value(), closure().detach())
    v = torch.tensor([0.3, 0.7], dtype=torch.float64)
    values = oracle.values([Shift(2.0, along(0.3, 0.7)), Shift()])
    moved = x.detach() + 2 * v
    assert torch.allclose(values, torch.stack([moved @ matrix @ moved / 2, closure().detach()]))
    loss, (grad,) = oracle.grad()
    assert grad is not None and torch.allclose(grad, matrix @ x.detach())
    assert torch.equal(loss, closure().detach())
    with oracle.hessian() as hessian:
        (product,) = hessian @ [v]
        assert torch.allclose(product, matrix @ v)
        assert hessian.grads[0] is not None and torch.allclose(hessian.grads[0], grad)
    assert oracle.rank([Shift(), Shift(1.0, along(-1.0, 2.0)), Shift(9.0, along(1.0, 1.0))]) == [
        1,
        0,
        2,
    ]
    calls = oracle.calls
    assert (calls.values, calls.grads, calls.products) == (3, 2, 1)
    assert (calls.rankings, calls.ranked) == (1, 3)
    assert calls.seconds > 0


def test_maximize_asks_about_minus_the_loss() -> None:
    matrix, x, closure = quadratic()
    oracle = ClosureOracle(closure, {"x": x}, maximize=True)
    assert torch.equal(oracle.value(), -closure().detach())
    loss, (grad,) = oracle.grad()
    assert torch.equal(loss, -closure().detach())
    assert grad is not None and torch.allclose(grad, -(matrix @ x.detach()))
    with oracle.hessian() as hessian:
        (product,) = hessian @ [torch.ones_like(x)]
    assert torch.allclose(product, -matrix.sum(1))
    assert oracle.rank([Shift(), Shift(5.0, along(1.0, -1.0))]) == [1, 0]


def test_gauss_newton_of_a_linear_model_is_its_hessian() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 2).double(), torch.randn(5, 3).double(), torch.randn(5, 2).double()
    closure = Composite(lambda: model(x), lambda out: ((out - y) ** 2).sum() / 2)
    params = dict(model.named_parameters())
    oracle = ClosureOracle(closure, params)
    v = [torch.randn_like(p) for p in params.values()]
    with oracle.ggn() as ggn, oracle.hessian() as hessian:
        for a, b in zip(ggn @ v, hessian @ v, strict=True):
            assert torch.allclose(a, b)
    assert (oracle.calls.values, oracle.calls.grads, oracle.calls.products) == (1, 1, 2)
    with pytest.raises(ClosureError, match="Composite"):
        ClosureOracle(lambda: closure(), params).ggn()


@pytest.mark.parametrize(
    ("limit", "ask"),
    [
        (Budget(values=2), lambda o: o.values([Shift()] * 3)),
        (Budget(grads=1), lambda o: [o.grad(), o.grad()]),
        (Budget(rankings=1), lambda o: [o.rank([Shift()]), o.rank([Shift()])]),
        (Budget(ranked=2), lambda o: o.rank([Shift()] * 3)),
        (Budget(forwards=2), lambda o: o.grad()),
        (Budget(seconds=1e-9), lambda o: [o.value(), o.value()]),
    ],
)
def test_budget_is_checked_before_the_question(
    limit: Budget, ask: Callable[[ClosureOracle], Any]
) -> None:
    _, x, inner = quadratic()
    asked = 0

    def closure() -> Tensor:
        nonlocal asked
        asked += 1
        return inner()

    oracle = ClosureOracle(closure, {"x": x}, budget=limit)
    with pytest.raises(BudgetExhausted):
        ask(oracle)
    calls = oracle.calls
    assert asked == calls.values + calls.grads + calls.ranked
    spent = {**calls.to_dict(), "forwards": calls.forwards(), "seconds": 0.0}
    assert all(spent[unit] <= most for unit, most in limit.limits().items())


def test_products_are_checked_too() -> None:
    _, x, closure = quadratic()
    oracle = ClosureOracle(closure, {"x": x}, budget=Budget(products=1))
    with oracle.hessian() as hessian:
        _ = hessian @ [torch.ones_like(x)]
        with pytest.raises(BudgetExhausted):
            _ = hessian @ [torch.ones_like(x)]


class Busy(nn.Module):
    """Touches everything a closure may touch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(()) + random.random() + float(np.random.rand())  # noqa: NPY002
        return self.drop(self.norm(self.layer(x))) + 0.01 * noise


def world(model: nn.Module) -> dict[str, Any]:
    return {
        "params": [p.detach().clone() for p in model.parameters()],
        "grads": [p.grad for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "buffers": [b.clone() for b in model.buffers()],
        "modes": [m.training for m in model.modules()],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[union-attr] # noqa: NPY002
    }


def unchanged(a: dict[str, Any], b: dict[str, Any]) -> bool:
    tensors = all(
        torch.equal(x, y)
        for key in ("params", "buffers")
        for x, y in zip(a[key], b[key], strict=True)
    )
    grads = all(x is y for x, y in zip(a["grads"], b["grads"], strict=True))
    rest = all(a[key] == b[key] for key in ("requires", "modes", "python", "numpy"))
    return tensors and grads and rest and torch.equal(a["torch"], b["torch"])


QUESTIONS: dict[str, Callable[[ClosureOracle, nn.Module], Any]] = {
    "values": lambda o, m: o.values([Shift(0.1, Seeded(0, 0)), Shift()]),
    "rank": lambda o, m: o.rank([Shift(0.1, Seeded(0, 0)), Shift()]),
    "grad": lambda o, m: o.grad(),
    "hessian": lambda o, m: _product(o.hessian(), m),
    "finite": lambda o, m: _product(o.hessian(products="finite"), m),
}


def _product(operator: Any, model: nn.Module) -> Any:
    with operator as hessian:
        return hessian @ [torch.ones_like(p) for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("fatal", [None, 1, 2])
def test_every_question_leaves_the_world_as_found(question: str, fatal: int | None) -> None:
    model, x = Busy(), torch.randn(8, 4)
    model.drop.eval()
    model.layer.bias.requires_grad_(False)
    model.layer.weight.grad = torch.ones(4, 4)
    count = 0

    def closure() -> Tensor:
        nonlocal count
        count += 1
        loss = model(x).pow(2).mean()
        if count == fatal:
            model.eval()
            raise RuntimeError("boom")
        return loss

    found = world(model)
    oracle = ClosureOracle(closure, dict(model.named_parameters()), module=model)
    with pytest.raises(RuntimeError, match="boom") if fatal == 1 else contextlib.nullcontext():
        if fatal == 2:
            with contextlib.suppress(RuntimeError):  # some questions are answered by one evaluation
                QUESTIONS[question](oracle, model)
        else:
            QUESTIONS[question](oracle, model)
    assert unchanged(found, world(model))


def test_advance_lets_the_first_evaluation_through_and_no_other() -> None:
    torch.manual_seed(0)
    model, twin, x = Busy(), Busy(), torch.randn(8, 4)
    twin.load_state_dict(model.state_dict())
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    twin(x)
    after = world(twin)
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    np.random.set_state(state[2])  # noqa: NPY002
    closure = lambda: model(x).pow(2).mean()  # noqa: E731
    oracle = ClosureOracle(closure, dict(model.named_parameters()), module=model, advance=True)
    values = oracle.values([Shift()] * 3)
    assert values[0] == values[1] == values[2], "one step, one set of random numbers"
    assert unchanged(after, world(model))


def test_rankers() -> None:
    _, x, closure = quadratic()
    seen: list[int] = []

    def ranker(shifts: Any) -> list[int]:
        seen.append(len(shifts))
        return [2, 0]

    oracle = ClosureOracle(closure, {"x": x}, ranker=ranker)
    assert oracle.rank([Shift()] * 3) == [2, 0] and seen == [3]
    for answer in ([], [0, 0], [3], [-1], [0, 1, 2, 0]):
        bad = ClosureOracle(closure, {"x": x}, ranker=lambda _, a=answer: a)
        with pytest.raises(RankingError, match="from 0 to 2"):
            bad.rank([Shift()] * 3)
        assert bad.calls == Calls() or bad.calls.rankings == 0


def test_a_value_that_is_not_a_number_ranks_last() -> None:
    x = nn.Parameter(torch.tensor([1.0]))
    oracle = ClosureOracle(lambda: x.log().sum(), {"x": x})
    down = Dense({"x": torch.tensor([-1.0])})
    assert oracle.rank([Shift(2.0, down), Shift(), Shift(0.5, down)]) == [2, 1, 0]


def test_policies_on_numbers_that_are_not_finite() -> None:
    x = nn.Parameter(torch.tensor([0.0]))
    for question in (lambda o: o.grad(), lambda o: o.hessian()):
        with pytest.raises(NonFiniteError, match="not finite in x"):
            question(ClosureOracle(lambda: x.abs().sqrt().sum(), {"x": x}))
        with pytest.raises(SkipStep):
            question(ClosureOracle(lambda: x.abs().sqrt().sum(), {"x": x}, nonfinite="skip"))
        question(ClosureOracle(lambda: x.abs().sqrt().sum(), {"x": x}, nonfinite="ignore"))
    with pytest.raises(NonFiniteError, match="loss is nan"):
        ClosureOracle(lambda: (x - 1).log().sum(), {"x": x}).value()


def test_closures_without_a_graph() -> None:
    x = nn.Parameter(torch.ones(2))
    for closure in (lambda: torch.tensor(1.0), lambda: x.detach().sum()):
        for question in (lambda o: o.grad(), lambda o: o.hessian()):
            with pytest.raises(ClosureError, match="no graph"):
                question(ClosureOracle(closure, {"x": x}))


def test_attention_without_second_derivative_names_the_operation_and_the_way_out() -> None:
    layer = nn.Linear(8, 24)
    x = torch.randn(2, 5, 8)

    def closure() -> Tensor:
        q, k, v = (t.unsqueeze(1) for t in layer(x).chunk(3, -1))
        return nn.functional.scaled_dot_product_attention(q, k, v).pow(2).mean()

    params = dict(layer.named_parameters())
    before = {n: p.detach().clone() for n, p in params.items()}
    oracle = ClosureOracle(closure, params)
    ones = [torch.ones_like(p) for p in params.values()]
    with pytest.raises(SecondDerivativeError, match=r"scaled_dot_product.*products='finite'"):
        _ = oracle.hessian() @ ones
    with oracle.hessian(products="finite") as hessian:
        finite = hessian @ ones
    assert oracle.calls.products == 0 and oracle.calls.grads == 4
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        oracle.hessian() as exact,
    ):
        for a, b in zip(finite, exact @ ones, strict=True):
            assert torch.allclose(a, b, atol=2e-3)
    assert all(torch.equal(p, before[n]) for n, p in params.items())


def test_autocast_and_a_gradient_scaler() -> None:
    model, x = nn.Linear(4, 1), torch.randn(8, 4)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def closure() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(x).float().pow(2).mean()

    params = dict(model.named_parameters())
    _, plain = ClosureOracle(closure, params).grad()
    _, scaled = ClosureOracle(closure, params, scaler=scaler).grad()
    for a, b in zip(plain, scaled, strict=True):
        assert a is not None and b is not None and torch.allclose(a, b, rtol=1e-2)
    optimizer = AdamW(model, scaler=scaler, engine="eager")
    huge = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    optimizer.scaler = huge
    before = model.weight.detach().clone()
    optimizer.step(lambda: model(x).pow(2).mean() * 1e6)
    assert torch.equal(model.weight, before), "an overflow is left out"
    assert optimizer.calls.skipped == 1 and huge.get_scale() < 2.0**127
    mezo = MeZO(model, lr=1e-3, engine="eager")
    assert mezo.step(closure) is not None


def test_the_users_hooks_fire() -> None:
    _, x, closure = quadratic()
    seen: list[str] = []
    x.register_hook(lambda grad: seen.append("hook"))
    x.register_post_accumulate_grad_hook(lambda p: seen.append("accumulated"))
    ClosureOracle(closure, {"x": x}).grad()
    assert seen == ["hook", "accumulated"]


def test_every_value_counts_once_however_often_it_is_tried() -> None:
    unused = nn.Parameter(torch.ones(3))
    x = nn.Parameter(torch.ones(3))
    oracle = ClosureOracle(lambda: x.sum(), {"x": x, "unused": unused})
    oracle.values([Shift(0.1, Seeded(0, 0))])
    assert oracle.calls.values == 1


# What the user sets for everything -----------------------------------------------------------


def asked(oracle: ClosureOracle) -> list[Tensor]:
    """An answer of each kind, in one list of tensors."""
    points = [Shift(0.5, Seeded(0, 1)), Shift(0.5, Seeded(0, 2, law="rademacher"))]
    loss, grads = oracle.grad()
    found = [oracle.values(points), loss, *(g for g in grads if g is not None)]
    found.append(torch.tensor(oracle.rank(points), device="cpu"))
    for operator in (oracle.hessian(), oracle.hessian(products="finite"), oracle.ggn()):
        with operator:
            found += operator @ [torch.ones_like(p) for p in oracle.params.values()]
    seen = oracle.output_grad()
    surrogate = oracle.reusing_outputs(lambda z: (z * seen.grad_outputs).sum())
    found += [seen.outputs, seen.grad_outputs, surrogate.value()]
    estimate = diagonal(
        Flip(), oracle.params, lambda i: Seeded(0, 0, i, "rademacher"), 2, Engine("eager")
    )
    return [*found, *estimate]


class Flip:
    """Minus the identity."""

    def __matmul__(self, vector: list[Tensor]) -> list[Tensor]:
        return [-v for v in vector]


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def large_and_small() -> tuple[dict[str, Tensor], Composite]:
    torch.manual_seed(0)
    params: dict[str, Tensor] = {
        "large": nn.Parameter(torch.randn(90, 50)),  # more elements than are made together
        "odd": nn.Parameter(torch.randn(7)),
        "small": nn.Parameter(torch.randn(3, 2)),
    }
    both = Composite(
        lambda: torch.stack([p.tanh().sum() for p in params.values()]), lambda z: z.pow(4).mean()
    )
    return params, both


@pytest.mark.parametrize(
    "setting", [default_dtype, lambda: torch.device("meta"), torch.inference_mode]
)
def test_global_settings_change_no_answer(setting: Any) -> None:
    params, closure = large_and_small()
    plain = asked(ClosureOracle(closure, params))
    _pack.cache_clear()
    _few.cache_clear()
    with setting():
        found = asked(ClosureOracle(closure, params))
    _pack.cache_clear()
    _few.cache_clear()
    for a, b in zip(plain, found, strict=True):
        assert a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def test_parameters_frozen_later_are_forgotten() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    learned = Learned()
    params: dict[str, Tensor] = {"used": used, "unused": unused}
    for _ in range(2):
        oracle = ClosureOracle(lambda: (used**2).sum(), params, learned=learned)
        near, far = oracle.values([Shift(), Shift(0.5, Seeded(0, 0))])
        assert near != far and learned.opaque == {"unused"}
        unused.requires_grad_(False)
    del params["used"]  # a model of which nothing is left to train can still be looked at
    assert ClosureOracle(lambda: (used**2).sum(), {}, learned=learned).value() == near


# Several processes ---------------------------------------------------------------------------


def _worker(rank: int, file: str, results: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(0)
    out: dict[str, Any] = {}
    for method, options in ((AdamW, {}), (AdaHessian, {}), (MeZO, {"lr": 1e-2})):
        torch.manual_seed(0)
        model = nn.parallel.DistributedDataParallel(nn.Linear(3, 2))
        generator = torch.Generator().manual_seed(rank)
        x, y = torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)
        optimizer = method(model, engine="eager", **options)
        for _ in range(4):
            optimizer.step(lambda m=model, x=x, y=y: ((m(x) - y) ** 2).mean())
        out[method.__name__] = [p.detach().tolist() for p in model.parameters()]
    results[rank] = out
    dist.destroy_process_group()


def test_data_parallel_processes_stay_equal_and_average(in_two_processes: Any) -> None:
    found = in_two_processes(_worker)
    first, second = found[0], found[1]
    assert first == second
    parts = [torch.Generator().manual_seed(rank) for rank in range(2)]
    data = [(torch.randn(8, 3, generator=g), torch.randn(8, 2, generator=g)) for g in parts]
    x, y = (torch.cat(tensors) for tensors in zip(*data, strict=True))
    for method, options in ((AdamW, {}), (AdaHessian, {}), (MeZO, {"lr": 1e-2})):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = method(model, engine="eager", **options)
        for _ in range(4):
            optimizer.step(lambda m=model: ((m(x) - y) ** 2).mean())
        for p, found in zip(model.parameters(), first[method.__name__], strict=True):
            assert torch.allclose(p, torch.tensor(found), atol=1e-4), method


def test_losses_on_derivatives_can_be_valued() -> None:
    """A closure that differentiates its model in its inputs needs a graph, not backward()."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(5, 1)

    def closure() -> Tensor:
        points = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(points).sum(), points, create_graph=True)
        return ((slope - 1) ** 2).mean()

    oracle = ClosureOracle(closure, dict(model.named_parameters()))
    near, far = oracle.values([Shift(), Shift(0.5, Seeded(0, 0))])
    assert torch.allclose(near, closure().detach()) and near != far
    assert oracle.calls.values == 2 and all(p.grad is None for p in model.parameters())

    def legacy() -> Tensor:
        loss = closure()
        loss.backward()
        return loss

    with pytest.raises(ClosureError, match="must not call backward"):
        ClosureOracle(legacy, dict(model.named_parameters())).value()
    assert all(p.grad is None for p in model.parameters())


def test_evaluations_of_a_question_cut_short_are_counted() -> None:
    x = nn.Parameter(torch.ones(2))
    count = 0

    def closure() -> Tensor:
        nonlocal count
        count += 1
        if count == 3:
            raise RuntimeError("boom")
        return x.sum()

    oracle = ClosureOracle(closure, {"x": x})
    with pytest.raises(RuntimeError, match="boom"):
        oracle.values([Shift()] * 5)
    assert oracle.calls.values == 2


# Outputs and loss apart ---------------------------------------------------------------------------


def apart() -> tuple[nn.Module, Composite]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(5, 3).double(), torch.tensor([0, 1, 1, 0, 1])
    return model, Composite(lambda: model(x), lambda z: nn.functional.cross_entropy(z, y))


@pytest.mark.parametrize("maximize", [False, True])
def test_an_output_gradient_is_a_gradient_seen_in_the_middle(maximize: bool) -> None:
    model, closure = apart()
    params = dict(model.named_parameters())
    oracle = ClosureOracle(closure, params, maximize=maximize)
    loss, grads = oracle.grad()
    found = oracle.output_grad()
    assert torch.equal(found.loss, loss)
    assert all(torch.equal(a, b) for a, b in zip(found.grads, grads, strict=True))
    outputs = closure.outputs().detach().requires_grad_()
    (slopes,) = torch.autograd.grad(closure.loss(outputs), outputs)
    assert torch.equal(found.outputs, outputs)
    assert torch.equal(found.grad_outputs, -slopes if maximize else slopes)
    assert (found.samples, oracle.calls.grads, oracle.calls.output_grads) == (5, 2, 2)
    assert all(p.grad is None for p in params.values())


def test_gradients_of_a_composite_hold_one_in_the_outputs() -> None:
    model, closure = apart()
    params = dict(model.named_parameters())
    oracle = ClosureOracle(closure, params)
    oracle.values([Shift(), Shift()])
    assert oracle.calls.output_grads == 0
    with oracle.hessian(), oracle.ggn():
        assert (oracle.calls.grads, oracle.calls.values, oracle.calls.output_grads) == (1, 3, 2)
    ClosureOracle(lambda: closure(), params, calls=oracle.calls).grad()
    assert (oracle.calls.grads, oracle.calls.output_grads) == (2, 2)
    with pytest.raises(BudgetExhausted, match="1 output_grads"):
        ClosureOracle(
            closure, params, calls=Calls(output_grads=1), budget=Budget(output_grads=1)
        ).output_grad()


def test_another_loss_of_the_same_outputs() -> None:
    model, closure = apart()
    params = dict(model.named_parameters())
    oracle = ClosureOracle(closure, params, maximize=True)
    found = oracle.output_grad()
    surrogate = oracle.reusing_outputs(lambda z: (z * found.grad_outputs).sum())
    _, grads = surrogate.grad()
    for a, b in zip(grads, found.grads, strict=True):
        assert torch.allclose(a, b)
    move = [torch.full_like(p, 0.1) for p in params.values()]
    with torch.no_grad():
        there = torch.stack([p + 0.1 for p in params["0.bias"]])
    before = {name: p.detach().clone() for name, p in params.items()}
    loss, shifted = surrogate.grad_at(oracle.shift(move))
    assert torch.equal(loss, surrogate.values([oracle.shift(move)])[0])
    assert all(torch.equal(params[name], value) for name, value in before.items())
    with torch.no_grad():
        for p in params.values():
            p += 0.1
    assert torch.equal(params["0.bias"], there)
    for a, b in zip(surrogate.grad()[1], shifted, strict=True):
        assert torch.allclose(a, b)
    assert oracle.calls is surrogate.calls
    assert (oracle.calls.grads, oracle.calls.values, oracle.calls.output_grads) == (4, 1, 1)


def test_a_surrogate_may_have_a_policy_of_its_own() -> None:
    model, closure = apart()
    oracle = ClosureOracle(closure, dict(model.named_parameters()))
    with pytest.raises(NonFiniteError):
        oracle.reusing_outputs(lambda z: z.sum() * torch.inf).value()
    trial = oracle.reusing_outputs(lambda z: z.sum() * torch.inf, nonfinite="ignore")
    assert bool(trial.value().isinf())


def test_outputs_and_losses_that_do_not_fit_are_refused() -> None:
    model, closure = apart()
    params = dict(model.named_parameters())
    weight = params["0.weight"]
    x = torch.ones(5, 3).double()
    wrong: list[tuple[Any, str]] = [
        (lambda: closure(), "Composite"),
        (
            Composite(lambda: [model(x)], lambda z: z[0].sum()),
            "outputs of the Composite to be one tensor.*list",
        ),
        (Composite(lambda: model(x).long(), lambda z: z.sum()), "int64"),
        (Composite(lambda: model(x).detach(), lambda z: z.sum()), "does not depend"),
        (Composite(lambda: model(x), lambda z: z.sum() + weight.sum()), "from no parameter"),
        (Composite(lambda: model(x), lambda z: weight.sum()), "from its outputs only"),
        (Composite(lambda: model(x), lambda z: z), "one real number"),
    ]
    for bad, says in wrong:
        with pytest.raises(ClosureError, match=says):
            ClosureOracle(bad, params).output_grad()
    with pytest.raises(ClosureError, match="Composite"):
        ClosureOracle(lambda: closure(), params).reusing_outputs(lambda z: z.sum())


def test_a_detached_loss_after_backward_is_said_to_be_after_backward() -> None:
    x = nn.Parameter(torch.ones(2))

    def closure() -> Tensor:
        loss = (x**2).sum()
        loss.backward()
        return loss.detach()

    with pytest.raises(ClosureError, match="must not call backward"):
        ClosureOracle(closure, {"x": x}).hessian()
    assert x.grad is None
