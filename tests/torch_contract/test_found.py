"""Faults found by looking for them, each with what torch.optim does or what is right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import anyorder
from anyorder import methods
from anyorder.errors import AnyOrderError

from .worlds import (
    KEEPING,
    METHODS,
    STATES,
    WIDE,
    advance,
    agree,
    attempt,
    backward,
    close,
    closure_for,
    copies,
    equal,
    frozen,
    loss_of,
    make,
    named,
    start,
)


def _tensors(optimizer: Any) -> list[Tensor]:
    """The tensors of all entries that are shaped like parameters or blocks of them."""
    return [
        value
        for entry in optimizer.state.values()
        for value in entry.values()
        if isinstance(value, Tensor) and value.ndim
    ]


# The state is the truth --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "state"), [s for s in STATES if s[0] in KEEPING])
def test_state_moved_by_its_data_is_used_and_saved(name: str, state: str) -> None:
    """``value.data = value.data.to(device)``, the usual lines that move state to a device."""
    options = {} if state == "fp32" else {"state": state}
    params, others = start(WIDE, (5,)), start(WIDE, (5,))
    one, two = make(name, named(params), **options), make(name, named(others), **options)
    advance(name, one, params, steps=2)
    advance(name, two, others, steps=2)
    for value in _tensors(one):
        value.data = value.data.clone()
    advance(name, one, params, steps=2)
    advance(name, two, others, steps=2)
    assert equal(params, others)
    assert agree(frozen(one.state_dict()["state"]), frozen(two.state_dict()["state"]))


def test_state_whose_data_is_exchanged_ends_where_torch_ends() -> None:
    params, others = start(), start()
    one = anyorder.AdamW(params, lr=0.05, weight_decay=0.0)
    two = torch.optim.AdamW(others, lr=0.05, weight_decay=0.0)
    for optimizer, given in ((one, params), (two, others)):
        backward(optimizer, given, steps=2)
        for value in _tensors(optimizer):
            value.data = torch.full_like(value, 0.25)
        backward(optimizer, given, steps=2)
    close(params, others)


def test_another_shape_of_as_many_elements_is_refused() -> None:
    """PyTorch refuses it too: momenta of a matrix are no momenta of its transpose."""
    param = nn.Parameter(torch.arange(12.0).view(4, 3))
    optimizer = anyorder.AdamW([param])
    param.grad = torch.ones(4, 3)
    optimizer.step()
    param.grad = None
    param.data = param.data.t().contiguous()
    param.grad = torch.ones(3, 4)
    before = param.detach().clone()
    with pytest.raises(AnyOrderError, match="shape"):
        optimizer.step()
    assert torch.equal(param, before)
    del optimizer.state[param]
    optimizer.step()


# Settings that are changed in groups -------------------------------------------------------------


def _in_two_groups(name: str, **options: Any) -> tuple[Any, list[nn.Parameter]]:
    params = start((4, 3), (3, 4))
    groups = [{"params": [pair]} for pair in named(params)]
    return make(name, groups, **options), params


@pytest.mark.parametrize("name", METHODS)
def test_a_bad_value_in_a_late_group_is_refused_before_anything_moves(name: str) -> None:
    hypers = methods.get(name).hypers
    bad = ("x", float("nan"), True, (0.9,), -1.0)
    wrong: list[Any] = []
    optimizer, params = _in_two_groups(name)
    advance(name, optimizer, params)
    before, group = copies(params), optimizer.param_groups[1]
    for option, declared in hypers.items():
        for value in bad:
            try:
                declared.check(option, value)
                continue
            except AnyOrderError:
                pass
            kept, group[option] = group[option], value
            try:
                advance(name, optimizer, params)
                wrong.append((option, value))
            except AnyOrderError as error:
                wrong += [(option, value)] * (option not in str(error))
            group[option] = kept
    assert not wrong
    assert equal(params, before)
    advance(name, optimizer, params)


@pytest.mark.parametrize("key", ["maximize", "nonfinite", "amsgrad"])
def test_options_of_the_whole_optimizer_are_no_settings_of_a_group(key: str) -> None:
    """``group["maximize"] = True`` turns torch.optim around; it is not passed over."""
    optimizer, params = _in_two_groups("adamw")
    backward(optimizer, params)
    before = copies(params)
    optimizer.param_groups[0][key] = True
    with pytest.raises(AnyOrderError, match=key):
        backward(optimizer, params)
    assert equal(params, before)


def test_another_clip_norm_in_one_group_is_refused() -> None:
    optimizer, params = _in_two_groups("sgd")
    optimizer.param_groups[1]["clip_norm"] = 1e-3
    with pytest.raises(AnyOrderError, match="clip_norm"):
        backward(optimizer, params)
    optimizer.param_groups[0]["clip_norm"] = 1e-3
    before = copies(params)
    backward(optimizer, params)
    moved = torch.cat(
        [(p - b).detach().flatten() for p, b in zip(params, before, strict=True)]
    ).norm()
    assert float(moved) == pytest.approx(optimizer.lr * 1e-3, rel=1e-3)


@pytest.mark.parametrize("state", ["bf16", "8bit"])
def test_another_precision_in_a_group_is_used(state: str) -> None:
    params, others = start(WIDE), start(WIDE)
    one, two = make("adamw", named(params)), make("adamw", named(others))
    advance("adamw", one, params, steps=2)
    advance("adamw", two, others, steps=2)
    one.param_groups[0]["state"] = state
    fresh = make("adamw", named(others), state=state)
    fresh.load_state_dict(two.state_dict())
    advance("adamw", one, params, steps=2)
    advance("adamw", fresh, others, steps=2)
    assert one.state[params[0]]["exp_avg"].dtype is not torch.float32
    assert equal(params, others)


@pytest.mark.parametrize("start_factor", [1.0, 0.1, 1 / 3])
def test_a_schedule_to_zero_may_miss_it_by_rounding(start_factor: float) -> None:
    """``LinearLR`` ends at minus 1e-20 for some lengths; that is zero."""
    for total in range(2, 40):
        optimizer, params = _in_two_groups("adamw")
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor, 0.0, total)
        for _ in range(total):
            optimizer.step()
            schedule.step()
        backward(optimizer, params)


def test_groups_with_the_keys_of_a_scheduler_can_be_given_on() -> None:
    params = start()
    old = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.OneCycleLR(old, 0.1, total_steps=9)
    assert anyorder.SGD(old.param_groups).param_groups[0]["max_momentum"] == 0.95


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("schedule_free_adamw", {"betas": (0.0, 0.9)}),
        ("accelerated", {"mu": 2.0, "L": 1.0}),
        ("sgd", {"nesterov": True, "dampening": 0.5}),
        ("sgd", {"clip_norm": 1.0}),
        ("muon", {"decoupled_weight_decay": False}),
    ],
)
def test_a_checkpoint_whose_settings_do_not_fit_each_other_is_refused(
    name: str, changed: dict[str, Any]
) -> None:
    optimizer, params = _in_two_groups(name)
    advance(name, optimizer, params)
    saved = optimizer.state_dict()
    saved["param_groups"][1].update(changed)
    before = frozen(optimizer.state_dict()["param_groups"])
    with pytest.raises(AnyOrderError, match=next(iter(changed))):
        optimizer.load_state_dict(saved)
    assert agree(frozen(optimizer.state_dict()["param_groups"]), before)


# Modes around a step -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"), [*[(name, {}) for name in METHODS], ("lion_k", {"kappa": "spectral"})]
)
def test_autocast_around_a_step_changes_no_number(name: str, options: dict[str, Any]) -> None:
    """Products of a method's own are not those of a forward pass."""
    params, others = start((8, 6), (5,)), start((8, 6), (5,))
    one, two = make(name, named(params), **options), make(name, named(others), **options)
    for _ in range(3):
        advance(name, two, others)
        with torch.autocast("cpu", torch.bfloat16):
            advance(name, one, params)
    assert equal(params, others)


# Groups ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["muon", "scale"])
def test_a_tensor_lr_is_scheduled_for_both_rules(name: str) -> None:
    """Schedulers write into a tensor; the ratio to ``adamw_lr`` is that of the numbers given."""
    moves: list[list[Tensor]] = []
    for lr in (torch.tensor(0.02), 0.02):
        params = start((4, 3), (5,))
        optimizer = make(name, named(params), lr=lr, adamw_lr=0.004)
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
        advance(name, optimizer, params)
        moves.append(copies(params))
    close(*moves)


def _weigh(optimizer: Any, params: list[nn.Parameter], steps: int) -> None:
    for _ in range(steps):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()


@pytest.mark.parametrize("how", ["removed", "reversed", "loaded"])
def test_averages_belong_to_their_groups(how: str) -> None:
    """Each group has weights of its own, wherever it stands in the list."""
    params, others = start((3,), (3,)), start((3,), (3,))

    def groups_of(params: list[nn.Parameter]) -> list[dict[str, Any]]:
        first, second = named(params)
        return [{"params": [first], "lr": 0.01}, {"params": [second], "lr": 0.1, "warmup": 5}]

    one = make("schedule_free_adamw", groups_of(params))
    two = make("schedule_free_adamw", groups_of(others))
    _weigh(one, params, 3)
    _weigh(two, others, 3)
    if how == "removed":
        one.param_groups.pop(0)
    elif how == "reversed":
        one.param_groups.reverse()
    else:
        new = make("schedule_free_adamw", groups_of(params)[::-1])
        new.load_state_dict(one.state_dict())
        one = new
    _weigh(one, params, 3)
    _weigh(two, others, 3)
    assert torch.equal(params[1], others[1])
    assert how == "removed" or torch.equal(params[0], others[0])
    with one.answer(), two.answer():
        assert torch.equal(params[1], others[1])


@pytest.mark.parametrize("make_", [torch.optim.AdamW, anyorder.AdamW])
def test_a_group_is_removed_and_another_one_added(make_: Any) -> None:
    first, second, third, fourth = start((2,), (3,), (4,), (5,))
    optimizer = make_([{"params": [first]}, {"params": [second]}], lr=0.1)
    optimizer.param_groups.pop(0)
    optimizer.add_param_group({"params": [third]})
    optimizer.add_param_group({"params": [fourth]})
    everyone = [first, second, third, fourth]
    before = copies(everyone)
    backward(optimizer, everyone[1:])
    moved = [not torch.equal(p, b) for p, b in zip(everyone, before, strict=True)]
    assert moved == [False, True, True, True]
    optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("name", METHODS)
def test_a_parameter_put_into_a_list_is_seen_by_everything(name: str) -> None:
    first, second, third, fourth = start((4, 3), (5,), (3, 2), (2, 2))
    optimizer = make(name, [first, second])
    optimizer.param_groups[0]["params"].append(third)
    assert "3x2" in optimizer.explain()
    assert len(optimizer.named_params()) == 3
    optimizer.param_groups[0]["params"].pop(0)
    optimizer.add_param_group({"params": [fourth]})
    assert [id(p) for p in optimizer.named_params().values()] == list(
        map(id, (second, third, fourth))
    )
    advance(name, optimizer, [second, third, fourth])


@pytest.mark.parametrize("name", METHODS)
def test_a_setting_written_to_the_optimizer_is_not_passed_over(name: str) -> None:
    """``optimizer.lr`` can be read; written, it would be another thing than the groups'."""
    optimizer = make(name, start())
    with pytest.raises(AttributeError, match="param_groups"):
        optimizer.lr = 0.5
    assert optimizer.lr == optimizer.param_groups[0]["lr"]


# The answer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("how", ["data.copy_", "data", "copy_"])
def test_weights_loaded_in_eval_mode_are_kept(name: str, how: str) -> None:
    """``param.data`` can be written without a trace in the version of the parameter."""
    params = start()
    optimizer = make(name, named(params))
    advance(name, optimizer, params, steps=3)
    here = copies(params)
    optimizer.eval()
    shown = copies(params)
    new = torch.full_like(params[0], 7.0)
    if how == "data":
        params[0].data = new.clone()
    elif how == "copy_":
        with torch.no_grad():
            params[0].copy_(new)
    else:
        params[0].data.copy_(new)
    optimizer.train()
    torch.testing.assert_close(params[0].detach(), new + here[0] - shown[0])
    assert torch.equal(params[1], here[1])


def test_after_is_called_when_an_answer_from_elsewhere_completes_a_step() -> None:
    seen: list[str] = []

    def after(name: str, param: Tensor) -> None:
        seen.append(name)
        param.clamp_(-0.1, 0.1)

    params = start()
    optimizer: Any = make("rank_sgd", named(params), after=after)
    assert not optimizer.tell([0, 1, 2])
    assert not seen
    assert optimizer.tell([1, 0])
    assert seen == ["p0", "p1"]
    assert all(bool((p.abs() <= 0.1).all()) for p in params)
    assert [entry["step"] for entry in optimizer.state.values()] == [1, 1]


# Checkpoints -------------------------------------------------------------------------------------


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to everything within a state dict."""
    inner = value.items() if isinstance(value, dict) else []
    inner = enumerate(value) if isinstance(value, (list, tuple)) else inner
    return [path, *[found for key, part in inner for found in _paths(part, (*path, key))]]


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy in which ``new`` stands at the end of ``path``."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, dict):
        return {**value, key: _with(value[key], tuple(rest), new)}
    listed = list(value)
    listed[key] = _with(listed[key], tuple(rest), new)
    return type(value)(listed)


JUNK = [10**400, torch.ones(2, 2), [[0]], object, -1, float("nan")]


@pytest.mark.parametrize("name", METHODS)
def test_anything_anywhere_in_a_checkpoint_is_refused_in_words_or_right(name: str) -> None:
    """Refused: nothing has changed. Taken: it can be stepped and saved."""
    params = start()
    optimizer = make(name, named(params))
    advance(name, optimizer, params, steps=2)
    saved = optimizer.state_dict()
    for path in _paths(saved):
        if path[:1] == ("param_groups",) and "anyorder" in path:
            continue  # passed over where the record itself is there
        for junk in JUNK:
            others = start()
            other = make(name, named(others))
            before = frozen(other.state_dict()["param_groups"])
            _, refusal = attempt(lambda: other.load_state_dict(_with(saved, path, junk)))  # noqa: B023
            if refusal:
                assert agree(frozen(other.state_dict()["param_groups"]), before), path
            else:
                advance(name, other, others)
                other.state_dict()


def test_one_entry_for_two_parameters_is_refused() -> None:
    params = start((3,), (3,))
    optimizer = make("adamw", named(params))
    advance("adamw", optimizer, params)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["params"] = [0, 0]
    del saved["state"][1]
    with pytest.raises(AnyOrderError, match="params"):
        optimizer.load_state_dict(saved)


def test_keys_of_an_entry_need_not_be_strings() -> None:
    params = start()
    optimizer = make("adamw", named(params))
    advance("adamw", optimizer, params)
    optimizer.state[params[0]][7] = "mine"
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state[params[0]][7] == "mine"
    advance("adamw", optimizer, params)


@pytest.mark.parametrize(("name", "option"), [("exadam", "version"), ("adamw", "state_block")])
@pytest.mark.parametrize("value", [True, 256.0, 1.0, torch.ones(2)])
def test_choices_are_of_the_kind_of_the_choice(name: str, option: str, value: Any) -> None:
    with pytest.raises(AnyOrderError, match=option):
        make(name, start(), **{option: value})


# Steps within steps ------------------------------------------------------------------------------


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_within_its_own_closure_is_taken_or_refused(name: str, cautious: bool) -> None:
    params = start()
    if cautious and "cautious" not in methods.get(name).hypers:
        pytest.skip("has no such option")
    optimizer = make(name, named(params), **({"cautious": True} if cautious else {}))
    before = copies(params)

    def closure() -> Tensor:
        loss = loss_of(params)
        advance(name, optimizer, params)
        return loss

    _, refusal = attempt(lambda: optimizer.step(closure_for(name, closure)))
    if refusal:
        assert "closure" in refusal
        assert equal(params, before)
        advance(name, optimizer, params)
    assert optimizer.steps == (1 if refusal else 2)


def test_a_step_within_its_own_closure_ends_where_torch_ends() -> None:
    ends: list[list[Tensor]] = []
    for make_ in (anyorder.AdamW, torch.optim.AdamW):
        params = start()
        optimizer = make_(params, lr=0.1)

        def closure() -> Tensor:
            backward(optimizer, params)  # noqa: B023
            optimizer.zero_grad()  # noqa: B023
            loss = loss_of(params)  # noqa: B023
            loss.backward()
            return loss

        optimizer.step(closure)
        ends.append(copies(params))
    close(*ends)


# Others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["muon", "scale"])
def test_a_matrix_may_be_replaced_by_a_vector(name: str) -> None:
    params = start((4, 3), (5,))
    optimizer = make(name, named(params))
    advance(name, optimizer, params)
    (new,) = start((7,))
    optimizer.param_groups[0]["params"][0] = new
    before = copies([new])
    advance(name, optimizer, [new, params[1]], steps=2)
    assert not equal([new], before)
    optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("worst", [float("inf"), float("nan"), -float("inf")])
def test_minimize_keeps_the_best_point_before_a_region_without_values(worst: float) -> None:
    """A constant out of bounds depends on nothing; that is no fault of the function."""

    def fun(x: Tensor) -> Tensor:
        return ((x - 1) ** 2).sum() if x[0] < 0.5 else torch.tensor(worst)

    result = anyorder.minimize(fun, torch.zeros(2), method="adamw", lr=0.1, budget="100grads")
    assert result.status == "diverged"
    assert 0.3 < float(result.x[0]) < 0.5
    assert float(result.fun) == pytest.approx(float(fun(result.x)))


@pytest.mark.parametrize("method", [anyorder.AdamW, None, 3])
def test_minimize_takes_methods_by_name(method: Any) -> None:
    with pytest.raises(AnyOrderError, match="name"):
        anyorder.minimize(lambda x: (x**2).sum(), torch.ones(2), method=method, budget="5grads")


@pytest.mark.parametrize("what", ["entry", "buffer"])
def test_state_shared_by_two_parameters_is_refused(what: str) -> None:
    """PyTorch lets each of them move it; here each has its own, so it is said."""
    params = start((3,), (3,))
    optimizer = make("sgd", named(params))
    backward(optimizer, params)
    own = dict(optimizer.state[params[1]])
    if what == "entry":
        optimizer.state[params[1]] = optimizer.state[params[0]]
    else:
        entry = optimizer.state[params[0]]
        optimizer.state[params[1]]["momentum_buffer"] = entry["momentum_buffer"]
    before = copies(params)
    with pytest.raises(AnyOrderError, match="p0 and p1 share"):
        backward(optimizer, params)
    assert equal(params, before)
    optimizer.state[params[1]] = own
    backward(optimizer, params)


@pytest.mark.parametrize(
    ("name", "setting"),
    [("accelerated", {"lr": 0.01}), ("schedule_free_adamw", {"betas": (0.5, 0.9)})],
)
@pytest.mark.parametrize("loaded", [False, True])
def test_the_way_back_from_the_answer_is_as_long_as_the_way_there(
    name: str, setting: dict[str, Any], loaded: bool
) -> None:
    """A scheduler steps on the validation loss, between ``eval()`` and ``train()``."""
    params = start()
    optimizer = make(name, named(params))
    advance(name, optimizer, params, steps=3)
    here = copies(params)
    optimizer.eval()
    shown = copies(params)
    optimizer.param_groups[0].update(setting)
    if loaded:
        with torch.no_grad():
            params[0].fill_(7.0)
    optimizer.train()
    moved = 7.0 + here[0] - shown[0] if loaded else here[0]
    torch.testing.assert_close(params[0].detach(), moved)
    assert torch.equal(params[1], here[1])


def test_an_answer_under_settings_that_cannot_be_is_refused() -> None:
    params = start()
    optimizer = make("schedule_free_adamw", named(params))
    advance("schedule_free_adamw", optimizer, params)
    optimizer.param_groups[0]["betas"] = (0.0, 0.9)
    before = copies(params)
    with pytest.raises(AnyOrderError, match="betas"), optimizer.answer():
        pass
    assert equal(params, before)


def test_a_large_gradient_in_float64_is_clipped_and_not_lost() -> None:
    ends: list[Tensor] = []
    for clip in ({"clip_norm": 1.0}, {}):
        param = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        optimizer = anyorder.SGD([param], lr=1.0, **clip)
        param.grad = torch.tensor([3e25, 4e25], dtype=torch.float64)
        if not clip:
            torch.nn.utils.clip_grad_norm_([param], 1.0)
        optimizer.step()
        ends.append(param.detach())
    close(ends[:1], ends[1:])
    assert float(ends[0].norm()) == pytest.approx(1.0)
