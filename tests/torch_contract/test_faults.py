"""Twenty inputs that once failed, each over every method it concerns.

The number of each public report of the same kind of fault in another project stands in the
docstring; inputs and values are our own.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import anyorder
from anyorder import AdamW, MeZO, methods
from anyorder.errors import AnyOrderError
from anyorder.minimize import minimize

from .worlds import (
    METHODS,
    PLAIN,
    advance,
    attempt,
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


# 1: a parameter is replaced in mid-training ----------------------------------------------------


def _grow(optimizer: Any, param: nn.Parameter) -> nn.Parameter:
    """Two more rows for ``param``, with zeros in its state."""
    kept = optimizer.state.pop(param, None)
    grown = nn.Parameter(torch.cat([param.detach(), torch.ones(2, *param.shape[1:])]))
    for group in optimizer.param_groups:
        group["params"] = [grown if p is param else p for p in group["params"]]
    if kept is not None:
        for key, value in kept.items():
            if isinstance(value, Tensor) and value.shape == param.shape:
                kept[key] = torch.cat([value, torch.zeros(2, *param.shape[1:])])
        optimizer.state[grown] = kept
    return grown


@every
@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_fault_01_a_parameter_that_took_anothers_place_is_trained(
    name: str, shape: tuple[int, ...]
) -> None:
    """gsplat#252, gaussian_splatting#32."""
    (p,) = start(shape)
    optimizer = make(name, [p])
    advance(name, optimizer, [p])
    q = _grow(optimizer, p)
    before, old = q.detach().clone(), p.detach().clone()
    advance(name, optimizer, [q], steps=5)
    assert torch.equal(p, old)
    assert bool((q != before).all())


def test_fault_01_as_torch_does(engine: Any) -> None:
    ends: list[Tensor] = []
    for make_ in (
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.0, foreach=False),
        lambda p: AdamW(p, lr=0.1, weight_decay=0.0, engine=engine),
    ):
        p = nn.Parameter(torch.ones(4))
        optimizer: Any = make_([{"params": [p]}])
        (p**2).sum().backward()
        optimizer.step()
        q = _grow(optimizer, p)
        for _ in range(3):
            optimizer.zero_grad()
            (q**2).sum().backward()
            optimizer.step()
        ends.append(q.detach())
    close([ends[1]], [ends[0]])


# 2, 3, 18: copies -------------------------------------------------------------------------------


@every
def test_fault_02_a_copy_beside_a_scheduler_steps_its_own_parameters(name: str) -> None:
    """Ensemble-Pytorch#37, pytorch#19308."""
    p = nn.Parameter(torch.ones(4, 4))
    optimizer = make(name, [p])
    torch.optim.lr_scheduler.StepLR(optimizer, 10)
    twin = copy.deepcopy(optimizer)
    q = twin.param_groups[0]["params"][0]
    before, other = p.detach().clone(), q.detach().clone()
    for _ in range(5):
        twin.step(closure_for(name, lambda: loss_of([p, q])))
    assert torch.equal(p, before)
    assert not torch.equal(q, other)
    assert (optimizer.steps, twin.steps) == (0, 5)


@every
@pytest.mark.parametrize("attached", ["scheduler", "hook", "both"])
def test_fault_03_pickles_with_what_is_attached(name: str, attached: str) -> None:
    """pytorch#94450, accelerate#805, determined#5037."""
    (p,) = start((4, 3))
    optimizer = make(name, [p])
    if attached != "hook":
        torch.optim.lr_scheduler.StepLR(optimizer, 10)
    if attached != "scheduler":
        optimizer.register_step_post_hook(lambda *a: None)
    advance(name, optimizer, [p])
    again = pickle.loads(pickle.dumps(optimizer))
    (q,) = again.param_groups[0]["params"]
    advance(name, optimizer, [p])
    advance(name, again, [q])
    assert torch.equal(p, q)


def rank_by_sum(shown: Any) -> list[int]:
    """A ranker that a pickle can find again; counts its questions."""
    ASKED.append(len(shown))
    return list(range(len(shown)))


ASKED: list[int] = []


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_fault_18_copies_keep_the_ranker(how: str) -> None:
    """pytorch#19308: a field is lost in the copy."""
    ASKED.clear()
    (p,) = start((4,))
    optimizer = make("rank_sgd", [p], ranker=rank_by_sum)
    twin = copy.deepcopy(optimizer) if how == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
    q = twin.param_groups[0]["params"][0]
    twin.step(lambda: (q**2).sum())
    assert len(ASKED) == twin.calls.rankings == 2


@plain
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_fault_18_copies_keep_the_scaler(name: str, how: str) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = make(name, start(), scaler=scaler)
    twin = copy.deepcopy(optimizer) if how == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
    assert twin.scaler is not None
    assert twin.scaler.get_scale() == 4.0


# 4: two parameters over one storage -------------------------------------------------------------


def test_fault_04_both_updates_of_shared_storage_arrive(engine: Any) -> None:
    """torch7#156: 1 - 0.1 - 0.1 * 3 = 0.6."""
    w = torch.ones(4)
    a, b = nn.Parameter(w), nn.Parameter(w)
    optimizer = anyorder.SGD([a, b], lr=0.1, engine=engine)
    (a.sum() + 3 * b.sum()).backward()
    optimizer.step()
    close([a], [torch.full((4,), 0.6)])


@plain
@pytest.mark.parametrize("overlap", ["whole", "part"])
def test_fault_04_every_method_adds_both_moves(name: str, overlap: str) -> None:
    """The moves of two parameters that lie apart, added where they share memory."""
    options = {"weight_decay": 0.0} if "weight_decay" in methods.get(name).hypers else {}
    slopes = [torch.linspace(1.0, 2.0, 12).reshape(4, 3), torch.linspace(3.0, 1.0, 12).view(4, 3)]
    rows = 4 if overlap == "whole" else 6
    w = torch.ones(rows, 3)
    shared = [nn.Parameter(w[:4]), nn.Parameter(w[rows - 4 :])]
    apart = clones(shared)
    for params in (shared, apart):
        optimizer = make(name, named(params), **options)
        for p, slope in zip(params, slopes, strict=True):
            p.grad = slope.clone()
        optimizer.step()
    expected = torch.ones(rows, 3)
    expected[:4] += apart[0].detach() - 1.0
    expected[rows - 4 :] += apart[1].detach() - 1.0
    close([w], [expected])


# 5, 6: the answer -------------------------------------------------------------------------------


@every
def test_fault_05_freezing_does_not_change_the_answer(name: str) -> None:
    """schedule_free#22, #15."""
    params = start((4, 3), (4,))
    optimizer = make(name, params)
    advance(name, optimizer, params, steps=5)
    with optimizer.answer():
        shown = copies(params)
    for some in (params[1:], params):
        for p in some:
            p.requires_grad_(False)
        here = copies(params)
        with optimizer.answer():
            assert equal(copies(params), shown)
        assert equal(copies(params), here)


@every
def test_fault_06_nested_answers_are_one(name: str) -> None:
    """schedule_free#48, sd-scripts#1250."""
    params = start()
    optimizer = make(name, params)
    advance(name, optimizer, params, steps=5)
    here = copies(params)
    with optimizer.answer():
        shown = copies(params)
        with optimizer.answer():
            assert equal(copies(params), shown)
        assert equal(copies(params), shown)
    assert equal(copies(params), here)


# 7: an unused parameter is frozen ---------------------------------------------------------------


@every
def test_fault_07_an_unused_parameter_may_be_frozen(name: str) -> None:
    """ColossalAI#5909, LoRA freezing in diffusers."""
    a, b = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    optimizer = make(name, [a, b])
    advance(name, optimizer, [a])
    b.requires_grad_(False)
    before = (a.detach().clone(), b.detach().clone())
    advance(name, optimizer, [a], steps=5)
    assert not torch.equal(a, before[0])
    assert torch.equal(b, before[1])
    b.requires_grad_(True)
    advance(name, optimizer, [a, b], steps=5)
    assert not torch.equal(b, before[1])


# 8: a skipped step --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"directions": 2}])
def test_fault_08_after_a_skipped_step_another_direction_is_tried(options: Any) -> None:
    """stan#217, raven#302."""
    p = nn.Parameter(torch.ones(3))
    optimizer = MeZO([p], lr=0.1, nonfinite="skip", **options)
    seen: list[tuple[float, ...]] = []

    def closure() -> Tensor:
        seen.append(tuple((p * 1.0).tolist()))
        return p.sum() * float("nan")

    for _ in range(6):
        optimizer.step(closure)
    assert optimizer.calls.skipped == 6
    assert len(set(seen)) == len(seen)
    assert bool((p == 1.0).all())


# 9, 10, 11: minimise as SciPy does ----------------------------------------------------------------


def test_fault_09_an_objective_that_changes_its_argument() -> None:
    """scipy#13740, #13741, #8419."""

    def f(x: Tensor) -> Tensor:
        x.sub_(1.0)
        return (x**2).sum()

    try:
        result = minimize(f, torch.zeros(3), method="mezo", lr=0.05, budget="200values")
    except AnyOrderError:
        return
    assert f(result.x.clone()).item() == pytest.approx(result.fun, abs=1e-3)


def test_fault_10_scipys_callback_sees_fun() -> None:
    """scipy#22965, #17486, #21061."""
    optimize = pytest.importorskip("scipy.optimize", reason="needs scipy")
    from anyorder.integrations.scipy import method

    seen: list[tuple[Any, float]] = []
    optimize.minimize(
        lambda x: (x**2).sum(),
        np.ones(2),
        method=method("mezo", budget="40values"),
        callback=lambda intermediate_result: seen.append(
            (intermediate_result.x.copy(), intermediate_result.fun)
        ),
    )
    assert seen
    assert all(np.isfinite(fun) and x.shape == (2,) for x, fun in seen)


def test_fault_11_scipys_options_and_arguments() -> None:
    """scipy#6757, #15994."""
    optimize = pytest.importorskip("scipy.optimize", reason="needs scipy")
    from anyorder.integrations.scipy import method

    bowl = lambda x: (x**2).sum()  # noqa: E731
    five = optimize.minimize(bowl, np.ones(2), method=method("mezo"), options={"maxiter": 5})
    assert five.nit == 5
    assert optimize.minimize(
        bowl, np.ones(2), method=method("mezo"), options={"disp": False, "maxiter": 3}
    ).nit == 3  # fmt: skip
    shifted: Any = lambda x, a: ((x - a) ** 2).sum()  # noqa: E731
    apart: Any = minimize(shifted, np.ones(2), 2.0, budget="20values")  # type: ignore[arg-type]
    wrapped: Any = minimize(shifted, np.ones(2), (2.0,), budget="20values")
    assert apart.fun == wrapped.fun


# 12, 13, 15: checkpoints --------------------------------------------------------------------------


@every
def test_fault_12_loading_keeps_no_tensor_of_the_caller(name: str) -> None:
    """pytorch#196083, DeepSpeed#8528."""
    first, second = start(), start()
    one = make(name, first, lr=torch.tensor(rate(name)))
    two = make(name, second, lr=torch.tensor(rate(name)))
    advance(name, one, first)
    two.load_state_dict(one.state_dict())
    one.param_groups[0]["lr"].fill_(7.0)
    assert float(two.param_groups[0]["lr"]) == pytest.approx(rate(name))


@every
def test_fault_13_load_hooks_run_once(name: str) -> None:
    """pytorch#105953."""
    log: list[str] = []
    optimizer = make(name, start())
    optimizer.register_load_state_dict_pre_hook(lambda *a: log.append("pre"))
    optimizer.register_load_state_dict_post_hook(lambda *a: log.append("post"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert log == ["pre", "post"]


@plain
def test_fault_15_distributed_checkpoint_restores_the_optimizer(name: str) -> None:
    """pytorch#192202, dion#109, HeavyBall#11."""
    torch.manual_seed(0)
    one, two = nn.Linear(3, 3), nn.Linear(3, 3)
    first = make(name, one.named_parameters(), lr=0.01)
    second = make(name, two.named_parameters(), lr=0.5)
    for _ in range(2):
        one(torch.ones(1, 3)).sum().backward()
        first.step()
        first.zero_grad()
    set_optimizer_state_dict(two, second, get_optimizer_state_dict(one, first))
    assert second.param_groups[0]["lr"] == 0.01
    two.load_state_dict(one.state_dict())
    for model, optimizer in ((one, first), (two, second)):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert equal(list(one.parameters()), list(two.parameters()))


# 14: inference mode -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mezo", "rank_sgd"])
@pytest.mark.parametrize("around", ["inference_mode", "no_grad"])
def test_fault_14_methods_of_inference_alone_work_in_inference_mode(name: str, around: str) -> None:
    """k2#1210, theseus#655."""
    params, others = start(), start()
    first, second = make(name, params), make(name, others)
    with getattr(torch, around)():
        advance(name, first, params)
    advance(name, first, params)
    advance(name, second, others, steps=2)
    assert equal(params, others)


# 16, 17, 19: groups -------------------------------------------------------------------------------


@every
def test_fault_16_keys_of_the_users_own_stay_in_groups(name: str) -> None:
    """ConvNeXt-V2#40, layer decay of timm, group names of 3DGS."""
    params = start()
    optimizer = make(name, [{"params": params, "name": "xyz", "lr_scale": 0.5}])
    assert optimizer.param_groups[0]["name"] == "xyz"
    advance(name, optimizer, params)
    saved = copy.deepcopy(optimizer.state_dict())
    assert all(g["name"] == "xyz" and g["lr_scale"] == 0.5 for g in saved["param_groups"])
    optimizer.load_state_dict(saved)
    late = {"params": start((2, 2)), "name": "late"}
    optimizer.add_param_group(late)
    assert optimizer.param_groups[0]["name"] == "xyz"
    assert optimizer.param_groups[-1]["name"] == "late"
    assert optimizer.param_groups[0]["lr_scale"] == 0.5


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fault_17_the_step_size_may_be_a_tensor(name: str, dtype: torch.dtype) -> None:
    """pytorch#126854, #127190."""
    params, others = start(), start()
    given = torch.tensor(rate(name), dtype=dtype)
    one = make(name, params, lr=given)
    two = make(name, others, lr=given.item())
    advance(name, one, params, steps=3)
    advance(name, two, others, steps=3)
    assert equal(params, others)
    assert float(given) == pytest.approx(rate(name))


@every
def test_fault_19_groups_of_another_optimizer_keep_their_names(name: str) -> None:
    """pytorch#51794: groups given to a second optimizer."""
    model = nn.Linear(2, 2)
    first = make(name, model.named_parameters())
    loss = lambda: (model(torch.ones(1, 2)) ** 2).sum()  # noqa: E731
    first.step(closure_for(name, loss))
    second = make(name, first.param_groups)
    names = [n for group in second.param_groups for n in group["param_names"]]
    assert names == ["weight", "bias"]
    second.load_state_dict(first.state_dict())


# 20: a scaler -------------------------------------------------------------------------------------


@every
def test_fault_20_a_scaler_is_used_or_refused(name: str) -> None:
    """adahessian#22: gradients of a float16 product vanish unless the loss is scaled."""
    w = nn.Parameter(torch.zeros(4, 4))  # near which so small a move is seen
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    # A line search sees no fall: in float16 so small a move changes no output.
    options: dict[str, Any] = {"inner": "gd"} if name == "sso" else {}
    optimizer, refusal = attempt(lambda: make(name, [w], scaler=scaler, **options))
    if refusal:
        assert "scaler" in refusal
        assert name not in PLAIN
        return
    assert "grad" in methods.get(name).needs or "output_grad" in methods.get(name).needs

    def closure() -> Tensor:
        half = (w * 1.0).half()
        return (((half.float() - 1.0) ** 2) * 1e-9).sum()

    optimizer.step(closure_for(name, closure))
    assert not bool((w == 0.0).any())
