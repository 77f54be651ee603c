"""Facts about parameters, gradients and surroundings that change after an optimizer was made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import anyorder
from anyorder import methods
from anyorder.errors import AnyOrderError

from .worlds import (
    DRAWING,
    FROM_VALUES,
    METHODS,
    PLAIN,
    WIDE,
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
    start,
)

every = pytest.mark.parametrize("name", METHODS)
plain = pytest.mark.parametrize("name", PLAIN)
#: Methods whose choices between points may turn on the last bit.
JUMPY = {*DRAWING, "accelerated", "sso"}


class Net(nn.Module):
    """A kernel, a vector and a large matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.linspace(0.5, 1.5, 2 * 3 * 3 * 3).reshape(2, 3, 3, 3))
        self.vector = nn.Parameter(torch.linspace(0.5, 1.5, 5))
        self.matrix = nn.Parameter(torch.linspace(0.5, 1.5, WIDE[0] * WIDE[1] * 2).reshape(-1, 120))

    @property
    def all(self) -> list[nn.Parameter]:
        return list(self.parameters())


#: What the parts of :class:`Net` are for.
ROLES = {"kernel": "convolution", "vector": "vector", "matrix": "matrix"}


def over(name: str, model: Net, **options: Any) -> Any:
    """The method over the network."""
    roles = {"roles": ROLES} if name in ("muon", "scale") else {}
    return make(name, model, **{**roles, **options})


def run(name: str, model: Net, change: Callable[[Net], Any], **options: Any) -> Any:
    """Two steps, a change, three steps."""
    optimizer = over(name, model, **options)
    advance(name, optimizer, model.all, steps=2)
    change(model)
    advance(name, optimizer, model.all, steps=3)
    return optimizer


# Memory format and dtype ------------------------------------------------------------------------


def _swapped(model: Net) -> None:
    """As ``module.to`` does where parameters are exchanged instead of given other data."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.to(memory_format=torch.channels_last)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def _turned(model: Net) -> None:
    model.matrix.data = model.matrix.data.t().contiguous().t()


FORMATS: dict[str, Callable[[Net], Any]] = {
    "channels_last": lambda model: model.to(memory_format=torch.channels_last),
    "swapped": _swapped,
    "turned": _turned,
    "shared": lambda model: model.share_memory(),
    "reloaded": lambda model: model.load_state_dict(copy.deepcopy(model.state_dict())),
    "assigned": lambda model: model.load_state_dict(
        {k: v.t().contiguous().t() if v.ndim == 2 else v for k, v in model.state_dict().items()}
    ),
}


@every
def test_another_memory_format_changes_no_number(name: str) -> None:
    kept = Net()
    run(name, kept, lambda model: None)

    def check(change: str) -> None:
        changed = Net()
        run(name, changed, FORMATS[change])
        close(changed.all, kept.all)

    check_all(FORMATS, check)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adahessian", "muon"])
@pytest.mark.parametrize("state", ["bf16", "8bit"])
def test_another_memory_format_under_reduced_state(name: str, state: str) -> None:
    changed, kept = Net(), Net()
    run(name, changed, FORMATS["channels_last"], state=state)
    run(name, kept, lambda model: None, state=state)
    close(changed.all[:2], kept.all[:2], rtol=1e-3, atol=1e-4)
    turned = Net()
    run(name, turned, _turned, state=state)
    close(turned.all, kept.all, rtol=1e-2, atol=5e-3)  # other elements may share a scale


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("which", ["all", "one"])
def test_another_dtype_goes_on_from_the_same_state(
    name: str, dtype: torch.dtype, which: str
) -> None:
    def change(model: Net) -> None:
        if which == "all":
            model.to(dtype)
        else:
            model.matrix.data = model.matrix.data.to(dtype)

    changed, kept = Net(), Net()
    options = {"eps": 0.05} if name in FROM_VALUES - {"forward_gradient"} else {}
    optimizer = run(name, changed, change, **options)
    run(name, kept, lambda model: None, **options)
    assert changed.matrix.dtype == dtype
    assert all(bool(torch.isfinite(p).all()) for p in changed.all)
    if name in JUMPY:
        return
    slack = 1e-4 if dtype is torch.float64 else 0.03
    close(changed.all, kept.all, rtol=slack, atol=slack)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(name, optimizer, changed.all)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_dtype_ends_as_a_fresh_optimizer_would(name: str, dtype: torch.dtype) -> None:
    model = Net()
    optimizer = over(name, model)
    advance(name, optimizer, model.all, steps=2)
    model.to(dtype)
    twin = copy.deepcopy(model)
    fresh = over(name, twin)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(name, optimizer, model.all, steps=2)
    advance(name, fresh, twin.all, steps=2)
    close(model.all, twin.all)


@every
def test_there_and_back_again(name: str) -> None:
    """``model.half()`` for a moment and ``float()`` again, as some save their weights."""
    changed, kept = Net(), Net()
    run(name, changed, lambda model: model.double().float())
    run(name, kept, lambda model: None)
    assert equal(changed.all, kept.all)


# One storage for two parameters -----------------------------------------------------------------


# The step size of ``accelerated`` follows from where it stands.
@pytest.mark.parametrize("name", [name for name in PLAIN if name != "accelerated"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_tied_by_data_before_or_after_the_first_step(name: str, when: str) -> None:
    """``b.data = a.data``: the moves of both arrive, step by step."""
    options = {"weight_decay": 0.0} if "weight_decay" in methods.get(name).hypers else {}
    slopes = [torch.full((4, 3), 1.0), torch.full((4, 3), 2.0)]
    ends: list[Tensor] = []
    for tied in (True, False):
        a, b = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))
        optimizer = make(name, [("a", a), ("b", b)], **options)
        if when == "before" and tied:
            b.data = a.data
        for step in range(2):
            if step and when == "after" and tied:
                b.data = a.data
            before = (a.detach().clone(), b.detach().clone())
            a.grad, b.grad = slopes[0].clone(), slopes[1].clone()
            optimizer.step()
        moves = (a.detach() - before[0]) + (b.detach() - before[1])
        ends.append((a.detach() - before[0]) if tied else moves)
    close(ends[:1], ends[1:], rtol=1e-3, atol=1e-5)


@every
def test_shared_storage_stands_still_without_a_step_size(name: str) -> None:
    if name == "rank_sgd":
        pytest.skip("walks to the best of the points it was shown")
    w = torch.linspace(0.0, 1.0, 18).reshape(6, 3)
    a, b = nn.Parameter(w[:4]), nn.Parameter(w[2:])
    before = w.clone()
    optimizer = make(name, [a, b], lr=0.0)
    advance(name, optimizer, [a, b], steps=2)
    assert torch.equal(w, before)
    assert a.data_ptr() == w.data_ptr()


@pytest.mark.parametrize("make_", [anyorder.AdamW, anyorder.SGD])
def test_overlapping_parameters_end_where_torch_ends(make_: Any) -> None:
    ends: list[Tensor] = []
    for kind in (getattr(torch.optim, make_.__name__), make_):
        w = torch.linspace(0.0, 1.0, 18).reshape(6, 3)
        a, b = nn.Parameter(w[:4]), nn.Parameter(w[2:])
        options = {"foreach": False} if kind is not make_ else {}
        optimizer = kind([a, b], lr=0.05, weight_decay=0.1, **options)
        backward(optimizer, [a, b], steps=4)
        ends.append(w)
    close(ends[1:], ends[:1])


# Gradients --------------------------------------------------------------------------------------


GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "strided": lambda g: g.t().contiguous().t(),
    "sliced": lambda g: torch.stack([g, g], -1)[..., 0],
    "expanded": lambda g: g[:1].expand_as(g),
    "one_number": lambda g: g.flatten()[0].expand_as(g),
    "view_of_a_bucket": lambda g: torch.cat([torch.zeros(3), g.flatten()])[3:].view_as(g),
    "negative_view": lambda g: torch._neg_view(-g),
}


@plain
@pytest.mark.parametrize("shape", [(4, 3), WIDE])
def test_a_gradient_may_lie_as_it_likes(name: str, shape: tuple[int, ...]) -> None:
    check_all(GRADIENTS, lambda kind: _lies(name, kind, shape))


def _lies(name: str, kind: str, shape: tuple[int, ...]) -> None:
    ends: list[list[Tensor]] = []
    for plainly in (False, True):
        params = start(shape)
        optimizer = make(name, named(params))
        for _ in range(2):
            lying = GRADIENTS[kind](params[0].detach() * 2.0)
            params[0].grad = lying.clone().contiguous().resolve_neg() if plainly else lying
            kept = lying.clone()
            optimizer.step()
            assert torch.equal(lying, kept)  # it is the user's
        ends.append(copies(params))
    if name in ("accelerated", "adagrad_norm"):  # a norm may be summed in another order
        close(*ends)
    else:
        assert equal(*ends)


@plain
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float32])
def test_a_gradient_of_another_dtype_is_taken_or_refused(name: str, dtype: torch.dtype) -> None:
    """Left from before ``p.data`` got another dtype; nothing may go wrong in silence."""
    params, others = start((4, 3), (5,)), start((4, 3), (5,))
    one, two = make(name, named(params)), make(name, named(others))
    advance(name, one, params, steps=2)
    advance(name, two, others, steps=2)
    loss_of(params).backward()
    loss_of(others).backward()
    for p, other in zip(params, others, strict=True):
        p.data = p.data.to(dtype)
        other.data = other.data.to(dtype)
        other.grad = None if other.grad is None else other.grad.to(dtype)
        assert p.grad is not None
    before = copies(params)
    try:
        one.step()
    except (AnyOrderError, TypeError, RuntimeError):
        assert equal(params, before)
        return
    two.step()
    close(params, others, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_gradients_that_come_and_go_as_in_torch(name: str) -> None:
    """Missing in some steps, of frozen ones, of ones the loss does not use."""
    kinds: dict[str, Any] = {
        "adamw": (torch.optim.AdamW, anyorder.AdamW, {"lr": 0.05}),
        "sgd": (torch.optim.SGD, anyorder.SGD, {"lr": 0.05, "momentum": 0.9}),
    }
    theirs, ours, options = kinds[name]
    ends: list[list[Tensor]] = []
    for kind in (theirs, ours):
        params = start((4, 3), (5,), (3, 2))
        optimizer = kind(params, **options)
        for step in range(9):
            optimizer.zero_grad()
            params[1].requires_grad_(step not in (2, 3))
            used = params[:2] if step % 3 == 1 else params
            loss_of(used).backward()
            if step == 5:
                params[0].grad = None
            optimizer.step()
        ends.append(copies(params))
    close(ends[1], ends[0])


@every
def test_freezing_and_thawing(name: str) -> None:
    params = start((4, 3), (5,), (3, 2))
    optimizer = make(name, params)
    advance(name, optimizer, params, steps=2)
    for frozen in ([0], [1, 2], [0, 1], []):
        for index, p in enumerate(params):
            p.requires_grad_(index not in frozen)
        before = copies(params)
        advance(name, optimizer, params, steps=5)
        for index, (p, was) in enumerate(zip(params, before, strict=True)):
            assert torch.equal(p, was) == (index in frozen)


@every
def test_a_frozen_parameter_with_a_gradient_left_stays(name: str) -> None:
    """``requires_grad_(False)`` after ``backward()``; an old ``.grad`` is no reason to move."""
    params = start((4, 3), (5,))
    optimizer = make(name, params)
    advance(name, optimizer, params)
    params[1].grad = torch.ones(5)
    params[1].requires_grad_(False)
    before = params[1].detach().clone()
    advance(name, optimizer, params, steps=2)
    assert torch.equal(params[1], before)
    assert torch.equal(params[1].grad, torch.ones(5))


@every
def test_parameters_the_loss_does_not_use(name: str) -> None:
    """They stay where they are (methods that draw points may move them) and join later."""
    params = start((4, 3), (5,), (3, 2))
    optimizer = make(name, params)
    before = copies(params)
    advance(name, optimizer, params[:2], steps=4)
    if name not in DRAWING:
        assert torch.equal(params[2], before[2])
    advance(name, optimizer, params, steps=4)
    assert not torch.equal(params[2], before[2])


@plain
def test_no_gradients_at_all_is_no_step(name: str) -> None:
    params = start()
    optimizer = make(name, params)
    backward(optimizer, params)
    before = copies(params)
    optimizer.zero_grad()
    optimizer.step()
    assert equal(params, before)


@plain
def test_in_the_backward_pass(name: str) -> None:
    """One optimizer for each parameter, stepped by a hook as soon as its gradient is there."""
    params, others = start((4, 3), (5,)), start((4, 3), (5,))
    hooked = {p: make(name, [(f"p{i}", p)]) for i, p in enumerate(params)}
    apart = [make(name, [(f"p{i}", p)]) for i, p in enumerate(others)]

    def hook(p: Tensor) -> None:
        hooked[p].step()
        hooked[p].zero_grad()

    for p in params:
        p.register_post_accumulate_grad_hook(hook)
    for _ in range(3):
        loss_of(params).backward()
        loss_of(others).backward()
        for optimizer in apart:
            optimizer.step()
            optimizer.zero_grad()
    assert equal(params, others)
    assert all(p.grad is None for p in params)


# What is set for the whole process --------------------------------------------------------------


@pytest.fixture
def surroundings() -> Iterator[Callable[[str], None]]:
    """Sets a default of PyTorch; all are as before afterwards."""
    dtype = torch.get_default_dtype()

    def change(what: str) -> None:
        if what == "float64":
            torch.set_default_dtype(torch.float64)
        elif what == "bfloat16":
            torch.set_default_dtype(torch.bfloat16)
        elif what == "meta":
            torch.set_default_device("meta")
        elif what == "deterministic":
            torch.use_deterministic_algorithms(True)
        elif what == "no_grad":
            torch.set_grad_enabled(False)

    yield change
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(False)
    torch.set_default_device(None)
    torch.set_default_dtype(dtype)


def weighted(params: list[nn.Parameter], weights: list[Tensor]) -> Callable[[], Tensor]:
    """A loss that makes no tensor of its own, so that defaults do not reach it."""
    return lambda: sum((((p - 0.2) * w) ** 2).sum() for p, w in zip(params, weights, strict=True))  # type: ignore[return-value]


@every
@pytest.mark.parametrize("what", ["float64", "bfloat16", "meta", "deterministic", "no_grad"])
@pytest.mark.parametrize("when", ["made", "stepped"])
def test_defaults_of_the_process_change_no_bit(
    name: str, what: str, when: str, surroundings: Callable[[str], None]
) -> None:
    """Nor the dtype or place of anything that is kept."""
    params, others = start((4, 3), (5,)), start((4, 3), (5,))
    weights = [torch.linspace(1.0, 2.0, p.numel()).view_as(p) for p in params]
    twin = make(name, named(others))
    optimizer: Any = None
    for _ in range(3):
        twin.step(closure_for(name, weighted(others, weights)))
    if when == "stepped":
        optimizer = make(name, named(params))
    surroundings(what)
    if when == "made":
        optimizer = make(name, named(params))
    for _ in range(3):
        optimizer.step(closure_for(name, weighted(params, weights)))
    with optimizer.answer(), twin.answer():
        assert equal(params, others)
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(saved)
    assert equal(params, others)
    for p, other in zip(params, others, strict=True):
        for key, value in twin.state.get(other, {}).items():
            kept = optimizer.state[p][key]
            if isinstance(value, Tensor):
                assert (kept.dtype, kept.device) == (value.dtype, value.device)
                assert torch.equal(kept, value)


@plain
@pytest.mark.parametrize("first", [True, False])
def test_a_step_in_inference_mode_is_a_step(name: str, first: bool) -> None:
    """Gradients made outside, the step taken inside: the first one, or a later one."""
    params, others = start(), start()
    one, two = make(name, named(params)), make(name, named(others))
    for step in range(4):
        one.zero_grad()
        loss_of(params).backward()
        with torch.inference_mode(step == 0 if first else step == 2):
            one.step()
        backward(two, others)
    assert equal(params, others)


@every
def test_a_closure_in_inference_mode_works_or_is_refused(name: str) -> None:
    params, others = start(), start()
    one, two = make(name, named(params)), make(name, named(others))
    for _ in range(2):
        before = copies(params)
        try:
            with torch.inference_mode():
                advance(name, one, params)
        except AnyOrderError:
            assert equal(params, before)
            return
        advance(name, two, others)
    advance(name, one, params)
    advance(name, two, others)
    assert equal(params, others)


@every
def test_everything_else_in_inference_mode(name: str) -> None:
    cases = ("answer", "state_dict", "load", "explain", "add", "copy")
    check_all(cases, lambda around: _in_inference_mode(name, around))


def _in_inference_mode(name: str, around: str) -> None:
    params, others = start(), start()
    one, two = make(name, named(params)), make(name, named(others))
    advance(name, one, params, steps=2)
    advance(name, two, others, steps=2)
    late = [{"params": [("late", start((2, 2))[0])]} for _ in range(2)]
    with torch.inference_mode():
        if around == "answer":
            with one.answer():
                pass
        elif around in ("state_dict", "load"):
            saved = one.state_dict()
            if around == "load":
                one.load_state_dict(saved)
        elif around == "explain":
            one.explain()
        elif around == "copy":
            copy.deepcopy(one)
        else:
            one.add_param_group(late[0])
            two.add_param_group(late[1])
    advance(name, one, params, steps=2)
    advance(name, two, others, steps=2)
    assert equal(params, others)


@every
def test_a_step_leaves_the_grad_mode_as_it_was(name: str) -> None:
    params = start()
    optimizer = make(name, params)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            advance(name, optimizer, params)
            assert torch.is_grad_enabled() is enabled
    assert all(p.requires_grad and p.is_leaf for p in params)
    assert all(p.grad_fn is None and not p.is_inference() for p in clones(params))
