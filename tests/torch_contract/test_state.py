"""``optimizer.state`` and ``optimizer.param_groups`` are the truth, whatever is done to them.

Three references: surgery that changes nothing changes no bit; surgery that changes something ends
where torch.optim ends with the same arithmetic; and after any surgery an optimizer goes on as a
fresh one to which the same state is loaded.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import anyorder
from anyorder.optimizer.base import GRADIENT_ONLY

from .worlds import (
    KEEPING,
    METHODS,
    STATES,
    WIDE,
    advance,
    backward,
    check_all,
    clones,
    close,
    copies,
    equal,
    loss_of,
    make,
    named,
    start,
)

Params = list[nn.Parameter]
#: Takes an optimizer and its parameters, returns the parameters that are trained from there on.
Surgery = Callable[[Any, Params], Params]


def _put(optimizer: Any, old: Tensor, new: Tensor, *, in_place: bool = True) -> None:
    """``new`` takes the place of ``old`` in its group."""
    for group in optimizer.param_groups:
        params = [new if p is old else p for p in group["params"]]
        if in_place:
            group["params"][:] = params
        else:
            group["params"] = params


# Surgery that changes nothing -------------------------------------------------------------------


def _clone_tensors(optimizer: Any, params: Params) -> Params:
    for p in params:
        for key, value in optimizer.state[p].items():
            if isinstance(value, Tensor):
                optimizer.state[p][key] = value.clone()
    return params


def _turn_tensors(optimizer: Any, params: Params) -> Params:
    for p in params:
        for key, value in optimizer.state[p].items():
            if isinstance(value, Tensor) and value.ndim == 2:
                optimizer.state[p][key] = value.t().contiguous().t()
    return params


def _copy_entries(optimizer: Any, params: Params) -> Params:
    for p in params:
        optimizer.state[p] = dict(reversed(copy.deepcopy(optimizer.state[p]).items()))
    return params


def _replace_state(optimizer: Any, params: Params) -> Params:
    optimizer.state = defaultdict(dict, {p: dict(e) for p, e in optimizer.state.items()})
    return params


def _pop_and_put_back(optimizer: Any, params: Params) -> Params:
    for p in reversed(params):
        if p in optimizer.state:
            optimizer.state[p] = optimizer.state.pop(p)
    return params


def _steps_as_tensors(optimizer: Any, params: Params) -> Params:
    for entry in optimizer.state.values():
        if "step" in entry:
            entry["step"] = torch.tensor(float(entry["step"]))
    return params


def _own_keys(optimizer: Any, params: Params) -> Params:
    for p in params:
        optimizer.state[p]["ema"] = p.detach().clone()
    return params


def _new_parameters(optimizer: Any, params: Params, *, in_place: bool = True) -> Params:
    fresh = clones(params)
    for old, new in zip(params, fresh, strict=True):
        if old in optimizer.state:
            optimizer.state[new] = optimizer.state.pop(old)
        _put(optimizer, old, new, in_place=in_place)
    return fresh


def _new_lists(optimizer: Any, params: Params) -> Params:
    return _new_parameters(optimizer, params, in_place=False)


def _new_data(optimizer: Any, params: Params) -> Params:
    for p in params:
        p.data = p.data.clone()
    return params


def _data_in_one_buffer(optimizer: Any, params: Params) -> Params:
    flat = torch.cat([torch.zeros(3), *[p.detach().flatten() for p in params]])
    at = 3
    for p in params:
        p.data = flat[at : at + p.numel()].view(p.shape)
        at += p.numel()
    return params


def _turned_data(optimizer: Any, params: Params) -> Params:
    for p in params:
        if p.ndim == 2:
            p.data = p.data.t().contiguous().t()
    return params


def _data_and_back(optimizer: Any, params: Params) -> Params:
    """As averages of weights do: other weights for a validation, then the own ones again."""
    kept = [p.data for p in params]
    for p in params:
        p.data = torch.zeros_like(p.data)
    for p, data in zip(params, kept, strict=True):
        p.data = data
    return params


def _new_groups(optimizer: Any, params: Params) -> Params:
    optimizer.param_groups = [
        {**group, "params": list(group["params"])} for group in optimizer.param_groups
    ]
    return params


def _groups_one_by_one(optimizer: Any, params: Params) -> Params:
    for index, group in enumerate(optimizer.param_groups):
        optimizer.param_groups[index] = dict(group)
    return params


def _through_a_state_dict(optimizer: Any, params: Params) -> Params:
    saved = optimizer.state_dict()
    optimizer.state.clear()
    optimizer.load_state_dict(saved)
    return params


def _set_state(optimizer: Any, params: Params) -> Params:
    optimizer.__setstate__(optimizer.__getstate__())
    return params


def _freeze_and_thaw(optimizer: Any, params: Params) -> Params:
    for value in (False, True):
        for p in params:
            p.requires_grad_(value)
    return params


def _swap_tensors(optimizer: Any, params: Params) -> Params:
    for p in params:  # refused by PyTorch where somebody holds a weak reference
        p.grad = None
        torch.utils.swap_tensors(p, nn.Parameter(p.detach().clone()))
    return params


NOTHING: dict[str, Surgery] = {
    f.__name__.strip("_"): f
    for f in (
        _clone_tensors,
        _turn_tensors,
        _copy_entries,
        _replace_state,
        _pop_and_put_back,
        _steps_as_tensors,
        _own_keys,
        _new_parameters,
        _new_lists,
        _new_data,
        _data_in_one_buffer,
        _turned_data,
        _data_and_back,
        _new_groups,
        _groups_one_by_one,
        _through_a_state_dict,
        _set_state,
        _freeze_and_thaw,
        _swap_tensors,
    )
}


def _shapes(state: str) -> list[tuple[int, ...]]:
    return [WIDE, (5,)] if state == "8bit" else [(4, 3), (5,), (2, 3)]


def _options(state: str) -> dict[str, Any]:
    return {} if state == "fp32" else {"state": state}


@cache
def _undisturbed(name: str, state: str) -> list[Tensor]:
    """Where a run ends to which nothing is done."""
    params = start(*_shapes(state))
    optimizer = make(name, named(params), **_options(state))
    advance(name, optimizer, params, steps=4)
    return copies(params)


@pytest.mark.parametrize(("name", "state"), [s for s in STATES if s[1] != "bf16"])
def test_surgery_that_changes_nothing_changes_no_bit(name: str, state: str) -> None:
    expected = _undisturbed(name, state)

    def check(surgery: str) -> None:
        params = start(*_shapes(state))
        optimizer = make(name, named(params), **_options(state))
        advance(name, optimizer, params, steps=2)
        params = NOTHING[surgery](optimizer, params)
        advance(name, optimizer, params, steps=2)
        if surgery == "turned_data":  # sums over a matrix may run in another order
            close(params, expected)
        else:
            assert equal(params, expected)

    check_all(NOTHING, check)


@pytest.mark.parametrize("surgery", ["new_parameters", "clone_tensors", "new_data"])
@pytest.mark.parametrize("state", ["bf16", "8bit"])
@pytest.mark.parametrize(
    "engine", ["exported", pytest.param("compiled", marks=pytest.mark.slow)], indirect=True
)
def test_nothing_changes_under_compiled_rules_either(engine: str, state: str, surgery: str) -> None:
    params = start(*_shapes("8bit"))
    optimizer = make("adamw", named(params), state=state, engine=engine)
    advance("adamw", optimizer, params, steps=2)
    params = NOTHING[surgery](optimizer, params)
    advance("adamw", optimizer, params, steps=3)
    others = start(*_shapes("8bit"))
    twin = make("adamw", named(others), state=state)
    advance("adamw", twin, others, steps=5)
    assert equal(params, others)


@pytest.mark.parametrize("name", METHODS)
def test_looking_into_the_state_before_the_first_step_changes_nothing(name: str) -> None:
    """``state`` is a defaultdict: reading makes empty entries."""
    params = start(*_shapes("fp32"))
    optimizer = make(name, named(params))
    fresh = [not optimizer.state[p] for p in params]
    # Methods that cannot step without a closure make their entries beforehand.
    assert all(fresh) if optimizer.needs == GRADIENT_ONLY else not any(fresh)
    optimizer.load_state_dict(optimizer.state_dict())
    advance(name, optimizer, params, steps=4)
    assert equal(params, _undisturbed(name, "fp32"))


@pytest.mark.parametrize("name", METHODS)
def test_own_keys_of_an_entry_are_saved_and_found_again(name: str) -> None:
    params, others = start(), start()
    first, second = make(name, named(params)), make(name, named(others))
    advance(name, first, params)
    first.state[params[0]]["ema"] = torch.full((2,), 3.0)
    first.state[params[0]]["note"] = "mine"
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(second.state[others[0]]["ema"], torch.full((2,), 3.0))
    assert second.state[others[0]]["note"] == "mine"


# Surgery that changes something: where torch.optim ends -----------------------------------------


def _clear(optimizer: Any, params: Params) -> Params:
    optimizer.state.clear()
    return params


def _empty_state(optimizer: Any, params: Params) -> Params:
    optimizer.state = defaultdict(dict)
    return params


def _pop_one(optimizer: Any, params: Params) -> Params:
    del optimizer.state[params[0]]
    return params


def _empty_entry(optimizer: Any, params: Params) -> Params:
    optimizer.state[params[1]] = {}
    return params


def _zero_buffers(optimizer: Any, params: Params) -> Params:
    for value in optimizer.state[params[0]].values():
        if isinstance(value, Tensor) and value.ndim:
            value.zero_()
    return params


def _other_buffers(optimizer: Any, params: Params) -> Params:
    for key, value in optimizer.state[params[0]].items():
        if isinstance(value, Tensor) and value.ndim:
            optimizer.state[params[0]][key] = torch.full_like(value, 0.5)
    return params


def _other_entry(optimizer: Any, params: Params) -> Params:
    optimizer.state[params[0]] = {
        key: value * 2.0 if isinstance(value, Tensor) and value.ndim else value
        for key, value in optimizer.state[params[0]].items()
    }
    return params


def _later_step(optimizer: Any, params: Params) -> Params:
    entry = optimizer.state[params[0]]
    if isinstance(entry.get("step"), Tensor):
        entry["step"].fill_(10.0)
    elif "step" in entry:
        entry["step"] = 10
    return params


def _step_as_new_tensor(optimizer: Any, params: Params) -> Params:
    for p in params[1:]:
        if "step" in optimizer.state[p]:
            optimizer.state[p]["step"] = torch.tensor(7.0)
    return params


def _of_other_rows(rows: Callable[[Tensor], Tensor]) -> Surgery:
    def surgery(optimizer: Any, params: Params) -> Params:
        old = params[0]
        new = nn.Parameter(rows(old.detach()))
        kept = optimizer.state.pop(old, {})
        optimizer.state[new] = {
            key: rows(value) if isinstance(value, Tensor) and value.shape == old.shape else value
            for key, value in kept.items()
        }
        _put(optimizer, old, new)
        return [new, *params[1:]]

    return surgery


def _without_state(optimizer: Any, params: Params) -> Params:
    new = nn.Parameter(torch.full((2, 2), 0.7))
    optimizer.state.pop(params[0], None)
    _put(optimizer, params[0], new)
    return [new, *params[1:]]


def _other_values(optimizer: Any, params: Params) -> Params:
    for p in params:
        p.data = torch.full_like(p.data, 0.9)
    return params


def _copy_values(optimizer: Any, params: Params) -> Params:
    with torch.no_grad():
        for p in params:
            p.copy_(torch.full_like(p, 0.9))
    return params


def _wide_data(optimizer: Any, params: Params) -> Params:
    """PyTorch's own do not follow by themselves; their state has to be widened too."""
    params[0].data = params[0].data.double()
    params[0].grad = None
    if type(optimizer).__module__.startswith("torch."):
        _wide_entries(optimizer, params)
    return params


def _wide_entries(optimizer: Any, params: Params) -> None:
    entry = optimizer.state[params[0]]
    for key, value in entry.items():
        if isinstance(value, Tensor) and value.ndim:
            entry[key] = value.double()


def _wide_data_and_state(optimizer: Any, params: Params) -> Params:
    _wide_data(optimizer, params)
    _wide_entries(optimizer, params)
    return params


def _append(optimizer: Any, params: Params) -> Params:
    new = nn.Parameter(torch.full((2, 2), 0.7))
    optimizer.param_groups[0]["params"].append(new)
    return [*params, new]


def _insert(optimizer: Any, params: Params) -> Params:
    new = nn.Parameter(torch.full((2, 2), 0.7))
    optimizer.param_groups[0]["params"].insert(0, new)
    return [*params, new]


def _remove_last(optimizer: Any, params: Params) -> Params:
    optimizer.param_groups[0]["params"].pop()
    return params


def _remove_middle(optimizer: Any, params: Params) -> Params:
    del optimizer.param_groups[0]["params"][1]
    return params


def _remove_by_a_new_list(optimizer: Any, params: Params) -> Params:
    group = optimizer.param_groups[0]
    optimizer.state.pop(group["params"][0])
    group["params"] = group["params"][1:]
    return params


def _reverse(optimizer: Any, params: Params) -> Params:
    optimizer.param_groups[0]["params"].reverse()
    return params


def _other_group(optimizer: Any, params: Params) -> Params:
    optimizer.param_groups[0] = {**optimizer.param_groups[0], "lr": 0.01, "weight_decay": 0.2}
    return params


def _raw_group(optimizer: Any, params: Params) -> Params:
    new = nn.Parameter(torch.full((2, 2), 0.7))
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": [new], "lr": 0.02})
    return [*params, new]


def _split_group(optimizer: Any, params: Params) -> Params:
    group = optimizer.param_groups[0]
    last = group["params"].pop()
    optimizer.param_groups.append({**group, "params": [last], "lr": 0.02})
    return params


def _no_group(optimizer: Any, params: Params) -> Params:
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    optimizer.param_groups.pop(0)
    return params


def _swap_entries(optimizer: Any, params: Params) -> Params:
    a, b = params[0], params[2]
    state = optimizer.state
    state[a], state[b] = state[b], state[a]
    return params


SOMETHING: dict[str, Surgery] = {
    "densify": _of_other_rows(lambda t: torch.cat([t, t[:2] * 0.5])),
    "prune": _of_other_rows(lambda t: t[1:3].clone()),
    "grow_to_large": _of_other_rows(lambda t: t.repeat(1000, 1)),
    "to_vector": _of_other_rows(lambda t: t.flatten().clone()),
    **{
        f.__name__.strip("_"): f
        for f in (
            _clear,
            _empty_state,
            _pop_one,
            _empty_entry,
            _zero_buffers,
            _other_buffers,
            _other_entry,
            _later_step,
            _step_as_new_tensor,
            _without_state,
            _other_values,
            _copy_values,
            _wide_data,
            _wide_data_and_state,
            _append,
            _insert,
            _remove_last,
            _remove_middle,
            _remove_by_a_new_list,
            _reverse,
            _other_group,
            _raw_group,
            _split_group,
            _no_group,
            _swap_entries,
        )
    },
}
PAIRS: dict[str, tuple[Any, Any]] = {
    "adamw": (
        lambda p: torch.optim.AdamW(p, lr=0.05, foreach=False),
        lambda p, **o: anyorder.AdamW(p, lr=0.05, **o),
    ),
    "sgd": (
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, foreach=False),
        lambda p, **o: anyorder.SGD(p, lr=0.05, momentum=0.9, **o),
    ),
}


def _operated(optimizer: Any, params: Params, surgery: str) -> tuple[list[Tensor], list[Tensor]]:
    """The weights of everybody after steps, surgery and steps."""
    backward(optimizer, params, steps=3)
    then = SOMETHING[surgery](optimizer, params)
    for p in {*params, *then}:
        p.grad = None
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(then).backward()
        optimizer.step()
    return copies(params), copies(then)


@pytest.mark.parametrize("surgery", SOMETHING)
@pytest.mark.parametrize(
    ("name", "engine"), [("adamw", "eager"), ("adamw", "compiled"), ("sgd", "eager")]
)
def test_surgery_ends_where_torch_ends(name: str, engine: str, surgery: str) -> None:
    if engine == "compiled" and surgery.startswith("wide_data"):
        engine = "eager"  # a kernel of its own, and seconds to compile it
    theirs, ours = (start((4, 3), (5,), (4, 3)) for _ in range(2))
    expected = _operated(PAIRS[name][0](theirs), theirs, surgery)
    found = _operated(PAIRS[name][1](ours, engine=engine), ours, surgery)
    for values, wanted in zip(found, expected, strict=True):
        close(values, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_surgery_after_surgery(name: str) -> None:
    """Densify and prune at every step, as point clouds are trained."""
    ends: list[list[Tensor]] = []
    for make_ in PAIRS[name]:
        params: Params = start((6, 3), (6,))
        optimizer: Any = make_([{"params": [p], "lr": 0.05} for p in params])
        for step in range(8):
            optimizer.zero_grad()
            loss_of(params).backward()
            optimizer.step()
            rows = (lambda t: torch.cat([t, t[:3]])) if step % 2 else (lambda t: t[::2].clone())
            for index in range(len(params)):
                turned = [*params[index:], *params[:index]]
                new = _of_other_rows(rows)(optimizer, turned)[0]
                params = [new if p is turned[0] else p for p in params]
        assert [id(p) for g in optimizer.param_groups for p in g["params"]] == list(map(id, params))
        ends.append(copies(params))
    close(ends[1], ends[0], atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_follows_its_groups(name: str) -> None:
    """Who is in a group is trained, who is not is left alone, and the state dict still fits."""
    cases = ("append", "raw_group", "remove_middle", "insert", "no_group")
    check_all(cases, lambda surgery: _follows(name, surgery))


def _follows(name: str, surgery: str) -> None:
    params = start((4, 3), (5,), (4, 3))
    optimizer = make(name, params)
    advance(name, optimizer, params, steps=2)
    if surgery == "raw_group":
        new = nn.Parameter(torch.full((2, 2), 0.7))
        optimizer.param_groups.append({**optimizer.param_groups[0], "params": [new]})
        then = [*params, new]
    else:
        then = SOMETHING[surgery](optimizer, params)
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    before = copies(then)
    advance(name, optimizer, then, steps=5)
    for p, was in zip(then, before, strict=True):
        assert torch.equal(p, was) != (id(p) in inside)
    for p in then:
        if id(p) not in inside:
            optimizer.state.pop(p, None)  # torch.optim saves no state of strangers either
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(name, optimizer, then)
    optimizer.explain()


# After any surgery: as a fresh optimizer with the same state ------------------------------------


def _weaken(optimizer: Any, params: Params) -> Params:
    """Nearly forget; of 8-bit state the size lies in the scales."""
    for p in params:
        for value in optimizer.state[p].values():
            if isinstance(value, Tensor) and value.is_floating_point():
                value.mul_(0.02)
    return params


AGAIN: dict[str, Surgery] = {
    "clear": _clear,
    "pop_one": lambda o, p: (o.state.pop(p[0], None), p)[1],
    "weaken": _weaken,
    "later_step": _later_step,
    "without_state": _without_state,
    "prune": SOMETHING["prune"],
    "other_values": _other_values,
}


@pytest.mark.parametrize(("name", "state"), STATES)
def test_after_surgery_as_a_fresh_one_with_that_state(name: str, state: str) -> None:
    def check(surgery: str) -> None:
        params = start(*_shapes(state))
        optimizer = make(name, named(params), **_options(state))
        advance(name, optimizer, params, steps=2)
        params = AGAIN[surgery](optimizer, params)
        others = clones(params)
        fresh = make(name, named(others), **_options(state))
        fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        advance(name, optimizer, params, steps=2)
        advance(name, fresh, others, steps=2)
        assert equal(params, others)

    # Codes in blocks cannot be cut by rows.
    check_all([s for s in AGAIN if (s, state) != ("prune", "8bit")], check)


#: Where a run of ``accelerated`` always looks back.
LOOKING_BACK: dict[str, dict[str, Any]] = {
    "accelerated": {"form": "heavy_ball", "mu": 1.0, "L": 4.0},
}
#: Of these the next step depends on their buffers. (An estimate of ``rank_sgd`` starts afresh
#: whenever a point has won.)
REMEMBERING = [s for s in STATES if s[0] in KEEPING and s[0] != "rank_sgd"]


@pytest.mark.parametrize("surgery", ["clear", "weaken"])
@pytest.mark.parametrize(("name", "state"), REMEMBERING)
def test_surgery_is_not_passed_over(name: str, state: str, surgery: str) -> None:
    ends: list[list[Tensor]] = []
    for operated in (True, False):
        params = start(*_shapes(state))
        options = _options(state) | LOOKING_BACK.get(name, {})
        optimizer = make(name, named(params), **options)
        advance(name, optimizer, params, steps=2)
        if operated:
            AGAIN[surgery](optimizer, params)
        # A small slope the other way: what is remembered decides where the weights go.
        optimizer.step(lambda p=params: torch.stack([x.sum() * -0.05 for x in p]).sum())
        ends.append(copies(params))
    assert not equal(*ends)
