"""A checkpoint is checked whole before anything is touched."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder import methods
from anyorder.optimizer import CheckpointError

from .worlds import (
    KEEPING,
    METHODS,
    STATES,
    WIDE,
    advance,
    agree,
    check_all,
    close,
    copies,
    equal,
    make,
    named,
    picture,
    start,
)

every = pytest.mark.parametrize("name", METHODS)
INF, NAN = float("inf"), float("nan")


class NothingError(Exception):
    """There is nothing of this kind to damage."""


def holders(value: Any, key: str) -> list[dict[str, Any]]:
    """The mappings of a state dict, outside tensors' entries, that hold ``key``."""
    found: list[dict[str, Any]] = []
    if isinstance(value, dict):
        found += [value] if key in value else []
        for name, inner in value.items():
            found += holders(inner, key) if name != "state" else []
    if isinstance(value, list):
        for inner in value:
            found += holders(inner, key)
    return found


def found(saved: Any, key: str) -> list[dict[str, Any]]:
    """:func:`holders`, of which there must be some."""
    places = holders(saved, key)
    assert places, f"a state dict no longer has {key!r}; write here what stands for it now"
    return places


def without(key: str) -> Callable[[Any], None]:
    """Takes ``key`` out wherever the optimizer's own record keeps it."""

    def damage(saved: Any) -> None:
        for place in found(saved, key):
            del place[key]

    return damage


def having(key: str, value: Any) -> Callable[[Any], None]:
    """Writes ``value`` over ``key`` wherever the optimizer's own record keeps it."""

    def damage(saved: Any) -> None:
        for place in found(saved, key):
            place[key] = value

    return damage


def count(kind: str, value: Any) -> Callable[[Any], None]:
    """Writes a count of the ledger."""

    def damage(saved: Any) -> None:
        for place in found(saved, "calls"):
            place["calls"] = {**place["calls"], kind: value}

    return damage


def group(**settings: Any) -> Callable[[Any], None]:
    """Writes settings into the first group."""

    def damage(saved: Any) -> None:
        first = saved["param_groups"][0]
        if not set(settings) & set(first):
            raise NothingError
        first.update(settings)

    return damage


def group_without(key: str) -> Callable[[Any], None]:
    def damage(saved: Any) -> None:
        if key not in saved["param_groups"][0]:
            raise NothingError
        del saved["param_groups"][0][key]

    return damage


def entry(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any], None]:
    """Changes what is kept for one parameter."""

    def damage(saved: Any) -> None:
        if not saved["state"]:
            raise NothingError
        change(saved["state"][next(reversed(saved["state"]))])

    return damage


def buffers(change: Callable[[Tensor], Tensor]) -> Callable[[Any], None]:
    """Changes the last buffer that is kept for anybody."""

    def damage(saved: Any) -> None:
        places = [
            (kept, key)
            for kept in saved["state"].values()
            for key, value in kept.items()
            if isinstance(value, Tensor) and value.ndim
        ]
        if not places:
            raise NothingError
        kept, key = places[-1]
        kept[key] = change(kept[key])

    return damage


def _append(where: str, value: Any) -> Callable[[Any], None]:
    def damage(saved: Any) -> None:
        saved["param_groups"][0][where] = [*saved["param_groups"][0][where], value]

    return damage


DAMAGES: dict[str, Callable[[Any], Any]] = {
    # The optimizer's own record.
    "no_steps": without("steps"),
    "no_seed": without("seed"),
    "no_calls": without("calls"),
    "no_method": without("method"),
    "no_format": without("format"),
    "steps_word": having("steps", "many"),
    "steps_negative": having("steps", -1),
    "steps_fraction": having("steps", 2.5),
    "steps_none": having("steps", None),
    "steps_nan": having("steps", NAN),
    "seed_word": having("seed", "x"),
    "seed_fraction": having("seed", 1.5),
    "seed_none": having("seed", None),
    "calls_none": having("calls", None),
    "calls_list": having("calls", [1, 2]),
    "calls_word": count("grads", "many"),
    "calls_negative": count("values", -3),
    "calls_nan": count("seconds", NAN),
    "calls_fraction": count("grads", 1.5),
    "calls_unknown": count("potatoes", 3),
    "method_other": having("method", "Another"),
    "format_later": having("format", 99),
    # Groups.
    "lr_negative": group(lr=-5),
    "lr_word": group(lr="high"),
    "lr_nan": group(lr=NAN),
    "lr_inf": group(lr=INF),
    "lr_none": group(lr=None),
    "lr_true": group(lr=True),
    "lr_two": group(lr=torch.tensor([0.1, 0.2])),
    "no_lr": group_without("lr"),
    "no_betas": group_without("betas"),
    "betas_three": group(betas=(0.9, 0.99, 0.999)),
    "betas_large": group(betas=(0.9, 2.0)),
    "betas_word": group(betas="high"),
    "decay_negative": group(weight_decay=-1.0),
    "eps_word": group(eps="small"),
    "momentum_large": group(momentum=1.5),
    "flag_word": group(cautious="yes"),
    "no_params": group_without("params"),
    "no_names": group_without("param_names"),
    "params_more": _append("params", 77),
    "names_more": _append("param_names", "other"),
    "group_twice": lambda s: s["param_groups"].append(copy.deepcopy(s["param_groups"][0])),
    "no_group": lambda s: s["param_groups"].clear(),
    "group_word": lambda s: s["param_groups"].__setitem__(0, "group"),
    "groups_none": lambda s: s.__setitem__("param_groups", None),
    "names_twice": lambda s: s["param_groups"][0].__setitem__(
        "param_names", [s["param_groups"][0]["param_names"][0]] * 2
    ),
    "index_twice": lambda s: s["param_groups"][0].__setitem__("params", [0, 0]),
    # State.
    "state_none": lambda s: s.__setitem__("state", None),
    "state_list": lambda s: s.__setitem__("state", [1, 2]),
    "no_state": lambda s: s.pop("state"),
    "state_of_a_stranger": lambda s: s["state"].__setitem__(99, {"step": 1}),
    "entry_none": lambda s: s["state"].__setitem__(0, None),
    "entry_tensor": lambda s: s["state"].__setitem__(0, torch.ones(3)),
    "no_step": entry(lambda e: e.pop("step", None) or _nothing()),
    "step_negative": entry(lambda e: e.__setitem__("step", -1)),
    "step_word": entry(lambda e: e.__setitem__("step", "many")),
    "step_fraction": entry(lambda e: e.__setitem__("step", 1.5)),
    "step_none": entry(lambda e: e.__setitem__("step", None)),
    "step_nan": entry(lambda e: e.__setitem__("step", torch.tensor(NAN))),
    "step_two": entry(lambda e: e.__setitem__("step", torch.tensor([1.0, 2.0]))),
    "buffer_shape": buffers(lambda t: torch.zeros(7, 11)),
    "buffer_flat": buffers(lambda t: t.flatten()[:-1]),
    "buffer_whole": buffers(lambda t: t.to(torch.int64) if t.is_floating_point() else t.float()),
    "buffer_bool": buffers(lambda t: t.to(torch.bool)),
    "buffer_complex": buffers(lambda t: t.to(torch.complex64)),
    "buffer_list": buffers(lambda t: t.tolist()),  # type: ignore[return-value, arg-type]
    "buffer_none": buffers(lambda t: None),  # type: ignore[return-value, arg-type]
    "buffer_sparse": buffers(lambda t: t.to_sparse()),
    "buffer_meta": buffers(lambda t: t.to("meta")),
    "buffer_nan": buffers(lambda t: torch.full_like(t, NAN)),
    "buffer_inf": buffers(lambda t: torch.full_like(t, INF)),
    # What is no state dict at all.
    "none": lambda s: None,
    "list": lambda s: [],
    "empty": lambda s: {},
    "torch": lambda s: torch.optim.SGD(start(), momentum=0.9).state_dict(),
}


def _nothing() -> Any:
    raise NothingError


def world(name: str, state: str = "fp32") -> tuple[Any, list[nn.Parameter]]:
    params = start(WIDE, (5,)) if state == "8bit" else start((4, 3), (5,))
    optimizer = make(name, named(params), **({} if state == "fp32" else {"state": state}))
    advance(name, optimizer, params, steps=2)
    return optimizer, params


def damaged(optimizer: Any, damage: Callable[[Any], Any]) -> Any:
    """A damaged copy of the state dict; skips where there is nothing to damage."""
    saved = copy.deepcopy(optimizer.state_dict())
    try:
        result = damage(saved)
    except NothingError:
        pytest.skip("this method keeps nothing of the kind")
    return result if damage in WHOLE else saved


WHOLE = [DAMAGES[key] for key in ("none", "list", "empty", "torch")]


def refused(name: str, optimizer: Any, params: list[nn.Parameter], bad: Any) -> None:
    """``bad`` raises, and everything is as if it had never been tried."""
    kept, kept_bad = picture(optimizer), copy.deepcopy(bad)
    entries = {id(p): id(optimizer.state.get(p)) for p in params}
    with pytest.raises(CheckpointError):
        optimizer.load_state_dict(bad)
    assert agree(picture(optimizer), kept)
    assert {id(p): id(optimizer.state.get(p)) for p in params} == entries
    assert type(bad) is type(kept_bad)
    advance(name, optimizer, params)
    assert equal(params, undisturbed(name, "8bit" if params[0].shape == WIDE else "fp32"))


@cache
def undisturbed(name: str, state: str) -> list[Tensor]:
    """Where three steps end with no checkpoint in between."""
    optimizer, params = world(name, state)
    advance(name, optimizer, params)
    return copies(params)


@every
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(name: str) -> None:
    def check(what: str) -> None:
        optimizer, params = world(name)
        refused(name, optimizer, params, damaged(optimizer, DAMAGES[what]))

    check_all(DAMAGES, check)


@every
def test_the_second_group_is_looked_at_before_the_first_is_loaded(name: str) -> None:
    params = start((4, 3), (5,))
    groups = [{"params": [pair]} for pair in named(params)]
    optimizer = make(name, groups)
    advance(name, optimizer, params, steps=2)
    bad = copy.deepcopy(optimizer.state_dict())
    bad["param_groups"][0]["lr"] = 0.123
    bad["param_groups"][-1]["lr"] = "high"
    for kept in bad["state"].values():
        for value in kept.values():
            if isinstance(value, Tensor):
                value.mul_(0.5)
    kept = picture(optimizer)
    with pytest.raises(CheckpointError):
        optimizer.load_state_dict(bad)
    assert agree(picture(optimizer), kept)


NONNEGATIVE = [(n, s) for n, s in STATES if methods.get(n).nonnegative]


@pytest.mark.parametrize(("name", "state"), NONNEGATIVE)
def test_negative_second_moments_are_refused(name: str, state: str) -> None:
    optimizer, _ = world(name, state)
    bad = copy.deepcopy(optimizer.state_dict())
    changed = 0
    for kept in bad["state"].values():
        for key, value in kept.items():
            stem = key.removesuffix(".scale")
            if stem in methods.get(name).nonnegative and value.is_floating_point():
                value.view(-1)[0] = -1.0
                changed += 1
    if not changed:
        pytest.skip("kept for none of these parameters")
    kept = picture(optimizer)
    with pytest.raises(CheckpointError, match="negative|>= 0"):
        optimizer.load_state_dict(bad)
    assert agree(picture(optimizer), kept)


SCALES: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "truncated_scales": lambda e, k: e.__setitem__(k, e[k][:-1]),
    "missing_scales": lambda e, k: e.pop(k),
    "nan_scales": lambda e, k: e[k].fill_(NAN),
    "whole_scales": lambda e, k: e.__setitem__(k, e[k].to(torch.int32)),
    "truncated_codes": lambda e, k: e.__setitem__(k[:-6], e[k[:-6]][:-1]),
    "narrow_codes": lambda e, k: e.__setitem__(k[:-6], e[k[:-6]][:, :-1]),
    "float_codes": lambda e, k: e.__setitem__(k[:-6], e[k[:-6]].float()),
    "flat_codes": lambda e, k: e.__setitem__(k[:-6], e[k[:-6]].flatten()),
    "missing_codes": lambda e, k: e.pop(k[:-6]),
}


@pytest.mark.parametrize("name", [n for n, s in STATES if s == "8bit"])
def test_damaged_8bit_state_is_refused(name: str) -> None:
    check_all(SCALES, lambda what: _scales(name, what))


def _scales(name: str, what: str) -> None:
    optimizer, params = world(name, "8bit")
    bad = copy.deepcopy(optimizer.state_dict())
    places = [
        (kept, key) for kept in bad["state"].values() for key in kept if key.endswith(".scale")
    ]
    if not places:
        pytest.skip("keeps nothing in 8 bits here")
    SCALES[what](*places[-1])
    refused(name, optimizer, params, bad)


#: What methods save beside buffers, by key, and what each of these cannot be.
RECORDS: dict[str, dict[str, list[Any]]] = {
    "schedule_free_adamw": {
        "averages": [None, [], [[1]], "x", [["a", 0.1, 0.2]], [[1, NAN, 0.1]], [[1, 0.1, -1.0]]],
    },
    "accelerated": {
        "now": [None, [], ["a"] * 5, [NAN] * 5],
        "momentum": [None, [1.0], "abc"],
        "probe": ["x", None],
        "curvatures": ["x", [1.0], [NAN, 1.0]],
        "slope": ["x"],
        "record": [None, [[1]], "x"],
        "every": ["x", 0, None],
    },
    "adagrad_norm": {"squares": [None, "x", -1.0, NAN, INF]},
    "rank_sgd": {"best": [99, -1, "x", 1.5], "averaged": [None, -1, "x", 1.5]},
    "sso": {"length": ["x", -1.0, NAN]},
}


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, record in RECORDS.items() for key in record]
)
def test_a_damaged_record_of_the_method_is_refused(name: str, key: str) -> None:
    optimizer, _ = world(name)
    damages = [without(key), *(having(key, value) for value in RECORDS[name][key])]
    kept = picture(optimizer)
    for damage in damages:
        bad = damaged(optimizer, damage)
        with pytest.raises(CheckpointError):
            optimizer.load_state_dict(bad)
        assert agree(picture(optimizer), kept)


@pytest.mark.parametrize("name", KEEPING)
def test_state_without_limits_goes_where_it_came_from(name: str) -> None:
    """Large, tiny and zero values are numbers like others: saved and loaded bit for bit."""
    optimizer, params = world(name)
    fresh, others = world(name)
    sign = 1.0 if methods.get(name).nonnegative else -1.0
    for kept in optimizer.state.values():
        for value in kept.values():
            if isinstance(value, Tensor) and value.numel() > 3:
                value.view(-1)[:4] = torch.tensor([1e30, 1e-42, 0.0, sign * 1e-30])
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p, other in zip(params, others, strict=True):
        for key, value in optimizer.state[p].items():
            now = fresh.state[other][key]
            assert torch.equal(now, value) if isinstance(value, Tensor) else now == value


@every
def test_nan_in_state_that_is_ignored_round_trips_or_is_refused(name: str) -> None:
    """``nonfinite="ignore"`` lets infinities into buffers; loading them is exact or refused."""
    params, others = start(), start()
    one = make(name, named(params), nonfinite="ignore")
    two = make(name, named(others), nonfinite="ignore")
    advance(name, one, params)
    advance(name, two, others)
    for kept in one.state.values():
        for value in kept.values():
            if isinstance(value, Tensor) and value.ndim:
                value.view(-1)[0] = INF
    saved = copy.deepcopy(one.state_dict())
    before = picture(two)
    try:
        two.load_state_dict(saved)
    except CheckpointError:
        assert agree(picture(two), before)
        return
    for p, other in zip(params, others, strict=True):
        for key, value in one.state[p].items():
            now = two.state[other][key]
            assert torch.equal(now, value) if isinstance(value, Tensor) else now == value


@every
def test_a_step_count_may_come_as_torch_keeps_it(name: str) -> None:
    """0-dim tensors, as other tools write them, count as the numbers they hold."""
    optimizer, params = world(name)
    twin, others = world(name)
    saved = copy.deepcopy(optimizer.state_dict())
    for kept in saved["state"].values():
        if "step" in kept:
            kept["step"] = torch.tensor(float(kept["step"]))
    twin.load_state_dict(saved)
    advance(name, optimizer, params)
    advance(name, twin, others)
    close(copies(params), copies(others))
    assert math.isfinite(float(others[0].detach().sum()))


@every
def test_what_json_and_files_make_of_a_checkpoint_still_loads(name: str) -> None:
    """Tuples become lists on the way through other formats."""
    optimizer, params = world(name)
    twin, others = world(name)

    def listed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: listed(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [listed(inner) for inner in value]
        return value

    twin.load_state_dict(listed(copy.deepcopy(optimizer.state_dict())))
    advance(name, optimizer, params)
    advance(name, twin, others)
    assert equal(params, others)
