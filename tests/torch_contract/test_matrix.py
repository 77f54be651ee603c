"""The matrix of PyTorch's own optimizer tests, written for every method here.

PyTorch does not ship ``test_optim.py``, and its table of inputs changes global settings when it is
imported, so the inputs stand here: layouts of parameters, groups, settings, errors.
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import anyorder
from anyorder import methods
from anyorder.errors import AnyOrderError
from anyorder.optimizer.base import GRADIENT_ONLY

from .worlds import (
    DRAWING,
    FROM_VALUES,
    METHODS,
    PLAIN,
    advance,
    backward,
    check_all,
    clones,
    close,
    closure_for,
    copies,
    equal,
    loss_of,
    make,
    named,
    rate,
    start,
)

every = pytest.mark.parametrize("name", METHODS)
plain = pytest.mark.parametrize("name", PLAIN)


# Correctness against torch.optim ----------------------------------------------------------------


ADAMW: dict[str, dict[str, Any]] = {
    "default": {},
    "lr": {"lr": 0.01},
    "tensor_lr": {"lr": torch.tensor(0.01)},
    "decay": {"weight_decay": 0.1},
    "no_decay": {"weight_decay": 0.0},
    "maximize": {"weight_decay": 0.1, "maximize": True},
    "betas": {"betas": (0.8, 0.95)},
    "no_memory": {"betas": (0.0, 0.9)},
    "eps": {"eps": 1e-2},
}
SGD: dict[str, dict[str, Any]] = {
    "default": {},
    "lr": {"lr": 0.01},
    "tensor_lr": {"lr": torch.tensor(0.01)},
    "decay": {"weight_decay": 0.5},
    "momentum": {"momentum": 0.9},
    "maximize": {"weight_decay": 0.1, "maximize": True},
    "dampening": {"momentum": 0.9, "dampening": 0.5},
    "momentum_decay": {"momentum": 0.9, "weight_decay": 0.1},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
}
ADAGRAD: dict[str, dict[str, Any]] = {
    "default": {},
    "lr": {"lr": 0.1},
    "tensor_lr": {"lr": torch.tensor(0.01)},
    "decay": {"weight_decay": 0.1},
    "maximize": {"weight_decay": 0.1, "maximize": True},
    "lr_decay": {"lr": 0.1, "lr_decay": 0.5, "weight_decay": 0.1},
    "initial": {"initial_accumulator_value": 0.1, "weight_decay": 0.1},
}
#: What is called otherwise here.
CALLED = {"initial_accumulator_value": "initial"}
TABLES = {"AdamW": ADAMW, "SGD": SGD, "Adagrad": ADAGRAD}
OURS: dict[str, Any] = {
    "AdamW": anyorder.AdamW,
    "SGD": anyorder.SGD,
    "Adagrad": methods.get("adagrad"),
}
CASES = [(kind, case) for kind, table in TABLES.items() for case in table]


def _slices(dtype: torch.dtype) -> list[nn.Parameter]:
    whole = torch.linspace(0.5, 1.5, 40, dtype=dtype).reshape(4, 10)
    return [nn.Parameter(whole[:, :5]), nn.Parameter(whole[:, 5::2])]


LAYOUTS: dict[str, Callable[[torch.dtype], list[nn.Parameter]]] = {
    "plain": lambda dtype: start((4, 3), (5,), dtype=dtype),
    "scalar": lambda dtype: start((), (1,), dtype=dtype),
    "empty": lambda dtype: start((0, 2), (3,), dtype=dtype),
    "turned": lambda dtype: [
        nn.Parameter(p.detach().t()) for p in start((4, 3), (2, 6), dtype=dtype)
    ],
    "slices": _slices,
    "kernel": lambda dtype: [
        nn.Parameter(
            start((2, 3, 2, 2), dtype=dtype)[0].detach().to(memory_format=torch.channels_last)
        )
    ],
    "large": lambda dtype: start((128, 80), (3,), dtype=dtype),
    "many": lambda dtype: start(*[(3, 2)] * 30, dtype=dtype),
}


def _both(kind: str, case: str, params: Callable[[], Any], run: Callable[[Any, int], None]) -> Any:
    given = TABLES[kind][case]
    theirs, ours = params(), params()
    first = getattr(torch.optim, kind)(theirs, foreach=False, **copy.deepcopy(given))
    renamed = {CALLED.get(k, k): v for k, v in copy.deepcopy(given).items()}
    second = OURS[kind](ours, engine="eager", **renamed)
    run(first, 0)
    run(second, 1)
    return theirs, ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "case"), CASES)
def test_ends_where_torch_ends(kind: str, case: str, dtype: torch.dtype) -> None:
    check_all(LAYOUTS, lambda layout: _as_torch(kind, case, layout, dtype))


def _as_torch(kind: str, case: str, layout: str, dtype: torch.dtype) -> None:
    ends: list[list[Tensor]] = []

    def run(optimizer: Any, which: int) -> None:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        backward(optimizer, params, steps=4)
        ends.append(copies(params))

    _both(kind, case, lambda: LAYOUTS[layout](dtype), run)
    close(ends[1], ends[0], rtol=1e-5 if dtype is torch.float32 else 1e-9)


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_group_overrides_end_where_torch_ends(kind: str, case: str) -> None:
    ends: list[list[Tensor]] = []

    def run(optimizer: Any, which: int) -> None:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        for _ in range(3):
            backward(optimizer, params)
            optimizer.param_groups[0]["lr"] = 0.02
            optimizer.param_groups[1]["weight_decay"] = 0.05
        ends.append(copies(params))

    def groups() -> Any:
        params = start((4, 3), (5,), (2, 2))
        return [
            {"params": params[:1]},
            {"params": params[1:2], "lr": 0.03},
            {"params": params[2:], "weight_decay": 0.2, "lr": 0.001},
        ]

    _both(kind, case, groups, run)
    close(ends[1], ends[0])


@pytest.mark.parametrize("kind", OURS)
def test_a_torch_checkpoint_is_refused_in_words(kind: str) -> None:
    params = start()
    theirs = getattr(torch.optim, kind)(params, lr=0.1)
    backward(theirs, params)
    ours = OURS[kind](start(), engine="eager")
    with pytest.raises(AnyOrderError, match=r"torch|another library"):
        ours.load_state_dict(theirs.state_dict())


# Every method ----------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_goes_the_right_way(name: str, dtype: torch.dtype) -> None:
    check_all(LAYOUTS, lambda layout: _goes(name, layout, dtype))


def _goes(name: str, layout: str, dtype: torch.dtype) -> None:
    params = LAYOUTS[layout](dtype)
    # One direction in n dimensions is n times too long.
    linear = name in FROM_VALUES - {"zo_adam", "zo_sign", "zeroth_order"}
    slow = {"lr": 1e-5 if layout == "large" else 5e-4} if linear else {}
    optimizer = make(name, params, **slow)
    before, first = copies(params), loss_of(params).item()
    best = first
    for _ in range(8):
        advance(name, optimizer, params)
        best = min(best, loss_of(params).item())
    assert best < first
    assert any(not torch.equal(p, was) for p, was in zip(params, before, strict=True))
    assert all(p.dtype == dtype for p in params)


@every
def test_goes_the_right_way_in_groups_with_a_schedule(name: str) -> None:
    params = start((4, 3), (5,))
    shared = name in {"sso", *DRAWING}  # one answer serves all groups
    groups = [{"params": params[:1]}, {"params": params[1:]}]
    if not shared:
        groups[1]["lr"] = rate(name) / 2
    optimizer = make(name, groups)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    first = loss_of(params).item()
    best = first
    for _ in range(8):
        advance(name, optimizer, params)
        schedule.step()
        plateau.step(loss_of(params).item())
        best = min(best, loss_of(params).item())
    assert best < first


@every
def test_climbs_where_it_is_told_to(name: str) -> None:
    params = start()
    optimizer = make(name, params, maximize=True)
    first = loss_of(params).item()
    best = first
    for _ in range(10):
        optimizer.step(closure_for(name, lambda: loss_of(params)))
        best = max(best, loss_of(params).item())
    assert best > first


@plain
def test_a_step_without_gradients_is_none(name: str) -> None:
    params = start()
    optimizer = make(name, named(params))
    before, entries = copies(params), len(optimizer.state)
    optimizer.step()
    assert equal(params, before)
    assert len(optimizer.state) == entries or all(
        not any(isinstance(v, Tensor) and v.ndim and v.any() for v in e.values())
        for e in optimizer.state.values()
    )
    twin_params = start()
    twin = make(name, named(twin_params))
    backward(twin, twin_params, steps=2)
    backward(optimizer, params, steps=2)
    if name not in ("schedule_free_adamw", "accelerated"):  # these count steps of a group
        close(params, twin_params)


@plain
def test_gradients_of_zero_move_nothing_but_by_decay(name: str) -> None:
    kind = methods.get(name)
    options = {"weight_decay": 0.0} if "weight_decay" in kind.hypers else {}
    params = start()
    optimizer = make(name, params, **options)
    before = copies(params)
    for _ in range(2):
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    close(params, before)


@every
def test_a_group_whose_parameters_have_no_gradients(name: str) -> None:
    params = start((4, 3), (5,), (2, 2))
    optimizer = make(name, [{"params": named(params)[:2]}, {"params": named(params)[2:]}])
    advance(name, optimizer, params[:2], steps=5)
    assert name in DRAWING or torch.equal(params[2], start((2, 2))[0])
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = copies(params)
    advance(name, optimizer, params, steps=5)
    assert not torch.equal(params[2], before[2])


@every
def test_state_dicts_are_the_same_every_time(name: str) -> None:
    """A run from a checkpoint is the run; a checkpoint of it is that checkpoint."""
    params = start()
    optimizer = make(name, named(params))
    advance(name, optimizer, params, steps=3)
    others = clones(params)
    again = make(name, named(others), lr=0.9 if name != "sso" else 1.0)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        advance(name, optimizer, params)
        advance(name, again, others)
        assert equal(params, others)
    first, second = optimizer.state_dict(), again.state_dict()
    assert first["state"].keys() == second["state"].keys()
    assert repr(first["param_groups"]) == repr(second["param_groups"])


@every
def test_a_state_dict_loads_with_weights_only(name: str, tmp_path: Any) -> None:
    params, others = start(), start()
    one, two = make(name, named(params)), make(name, named(others))
    torch.optim.lr_scheduler.StepLR(one, 5)
    advance(name, one, params, steps=2)
    torch.save(one.state_dict(), tmp_path / "saved.pt")
    loaded = torch.load(tmp_path / "saved.pt", weights_only=True)
    two.load_state_dict(loaded)
    for p, other in zip(params, others, strict=True):
        other.data.copy_(p.data)
    advance(name, one, params)
    advance(name, two, others)
    assert equal(params, others)


@every
def test_a_state_dict_names_parameters_by_their_places(name: str) -> None:
    """``params`` are positions from 0 on over all groups, as torch.optim counts."""
    params = start((4, 3), (5,), (2, 2))
    optimizer = make(name, [{"params": named(params)[:2]}, {"params": named(params)[2:]}])
    advance(name, optimizer, params)
    saved = optimizer.state_dict()
    assert {"state", "param_groups"} <= saved.keys()
    assert [i for g in saved["param_groups"] for i in g["params"]] == [0, 1, 2]
    assert all(i in (0, 1, 2) for i in saved["state"])
    names = [n for g in saved["param_groups"] for n in g["param_names"]]
    assert names == ["p0", "p1", "p2"]
    for index, kept in saved["state"].items():
        assert kept.keys() == optimizer.state[params[index]].keys()


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_mixed_dtypes(name: str, dtype: torch.dtype) -> None:
    """Parameters of several dtypes in one group move together and keep theirs."""
    params = [start((4, 3))[0], start((5,), dtype=dtype)[0], start((2, 2))[0]]
    options = {"eps": 0.05} if name in FROM_VALUES - {"forward_gradient"} else {}
    optimizer = make(name, params, **options)
    before = copies(params)
    advance(name, optimizer, params, steps=6)
    assert [p.dtype for p in params] == [torch.float32, dtype, torch.float32]
    assert all(not torch.equal(p, was) for p, was in zip(params, before, strict=True))
    assert all(bool(p.isfinite().all()) for p in params)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(name, optimizer, params)


@every
def test_each_dtype_alone_is_as_in_company(name: str) -> None:
    if name not in PLAIN or name in ("adagrad_norm", "accelerated"):
        pytest.skip("one number is made of all parameters")
    together = [start((4, 3))[0], start((5,), dtype=torch.float64)[0]]
    apart = clones(together)
    optimizer = make(name, named(together))
    lone = [make(name, [pair]) for pair in named(apart)]
    for _ in range(3):
        backward(optimizer, together)
        loss_of(apart).backward()
        for one in lone:
            one.step()
            one.zero_grad()
    close(together, apart)


@every
def test_errors_of_constructors(name: str) -> None:
    """What torch.optim refuses (or warns of) is refused here, by errors of the same kinds."""
    p, q = start((4, 3), (5,))
    wrong: list[tuple[Any, type[Exception]]] = [
        (p, TypeError),
        (3, TypeError),
        ([], ValueError),
        ([p, p], ValueError),
        ([{"params": [p, p]}], ValueError),
        ([{"params": [p]}, {"params": [p]}], ValueError),
        ([{"params": p}, {"params": [q, p]}], ValueError),
        ([("a", p), ("a", q)], ValueError),
        ([torch.ones(2, dtype=torch.complex64, requires_grad=True)], ValueError),
        ([nn.Parameter(torch.ones(2, dtype=torch.complex128))], ValueError),
        ([p * 2], ValueError),
        ([{"lr": 0.1}], ValueError),
        ([{"params": {p}}], TypeError),
        ({p, q}, TypeError),
        ([p.detach().to_sparse().requires_grad_()], ValueError),
    ]
    for params, error in wrong:
        with pytest.raises(error) as caught:
            make(name, params)
        assert isinstance(caught.value, AnyOrderError)


@every
def test_errors_of_add_param_group_leave_the_optimizer_alone(name: str) -> None:
    p, q = start((4, 3), (5,))
    optimizer = make(name, [("a", p)])
    for bad in (
        {"params": [p]},
        {"params": [q, q]},
        {"params": [("a", q)]},
        {"params": []},
        {"params": [q * 1.0]},
        {"params": [q], "lr": -1.0},
        {},
        [q],
        q,
    ):
        with pytest.raises((ValueError, TypeError)) as caught:
            optimizer.add_param_group(bad)  # type: ignore[arg-type]
        assert isinstance(caught.value, AnyOrderError)
        assert [list(map(id, g["params"])) for g in optimizer.param_groups] == [[id(p)]]
    before = q.detach().clone()
    advance(name, optimizer, [p], steps=2)
    assert torch.equal(q, before)


@every
@pytest.mark.parametrize("enabled", [True, False])
def test_set_grad_enabled(name: str, enabled: bool) -> None:
    """``step`` works under either, and leaves the mode; results are the same."""
    params, others = start(), start()
    one, two = make(name, named(params)), make(name, named(others))
    with torch.set_grad_enabled(enabled):
        advance(name, one, params, steps=3)
        assert torch.is_grad_enabled() is enabled
    advance(name, two, others, steps=3)
    assert equal(params, others)
    assert all(p.grad_fn is None and p.requires_grad for p in params)
    assert all(
        not v.requires_grad for e in one.state.values() for v in e.values() if isinstance(v, Tensor)
    )


@every
def test_an_optimizer_is_freed_with_its_last_name(name: str) -> None:
    """No reference cycle and no registry keeps parameters and state alive."""
    params = start()
    optimizer = make(name, params)
    advance(name, optimizer, params)
    watched = [weakref.ref(optimizer), weakref.ref(params[0])]
    gc.collect()
    gc.disable()
    try:
        del optimizer, params
        assert [ref() for ref in watched] == [None, None]
    finally:
        gc.enable()


@plain
def test_gradients_are_not_kept_alive(name: str) -> None:
    """After ``zero_grad()`` nobody holds the gradients of the last step."""
    params = start()
    optimizer = make(name, params)
    backward(optimizer, params)
    loss_of(params).backward()
    optimizer.step()
    watched = [weakref.ref(p.grad) for p in params if p.grad is not None]
    optimizer.zero_grad()
    gc.collect()
    assert watched
    assert all(ref() is None for ref in watched)


@every
def test_state_is_empty_before_and_there_after_the_first_step(name: str) -> None:
    params = start()
    optimizer = make(name, params)
    assert optimizer.needs != GRADIENT_ONLY or not optimizer.state
    advance(name, optimizer, params)
    kept = [v for e in optimizer.state.values() for v in e.values() if isinstance(v, Tensor)]
    if methods.get(name).buffers and name != "scale":
        assert set(optimizer.state) <= set(params)
        assert kept
    for p, entry in optimizer.state.items():
        assert all(v.device == p.device for v in entry.values() if isinstance(v, Tensor))


@plain
def test_a_closure_runs_with_gradients_on(name: str) -> None:
    """As torch.optim runs it, whatever the mode outside; it is run once."""
    params = start()
    optimizer = make(name, params)
    seen: list[bool] = []

    def closure() -> Tensor:
        seen.append(torch.is_grad_enabled())
        return loss_of(params)

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert seen == [True]
    assert loss is not None
    assert not loss.requires_grad


@every
def test_the_order_of_parameters_does_not_matter_to_their_moves(name: str) -> None:
    if name == "zo_hybrid":
        pytest.skip("it says which of them are the last")
    params, others = start((4, 3), (5,), (2, 2)), start((4, 3), (5,), (2, 2))
    one, two = make(name, named(params)), make(name, list(reversed(named(others))))
    advance(name, one, params, steps=3)
    advance(name, two, others, steps=3)
    close(params, others, rtol=1e-3, atol=1e-5)
