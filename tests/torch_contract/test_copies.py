"""Copies of optimizers: deep copies, pickles, files, other processes."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import anyorder
from anyorder import Budget

from .worlds import (
    METHODS,
    PLAIN,
    STATES,
    WIDE,
    advance,
    agree,
    check_all,
    closure_for,
    copies,
    equal,
    loss_of,
    make,
    named,
    picture,
    start,
)

every = pytest.mark.parametrize("name", METHODS)


def _filed(optimizer: Any) -> Any:
    file = io.BytesIO()
    torch.save(optimizer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


HOWS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda optimizer: pickle.loads(pickle.dumps(optimizer)),
    "file": _filed,
}
how = pytest.mark.parametrize("how", HOWS)


def params_of(optimizer: Any) -> list[nn.Parameter]:
    """All parameters, in order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def look(*_: Any) -> None:
    """A hook that a pickle can find again."""


@how
@pytest.mark.parametrize(("name", "state"), STATES)
def test_a_copy_goes_on_as_the_original_does(name: str, state: str, how: str) -> None:
    params = start(WIDE, (5,)) if state == "8bit" else start()
    options = {} if state == "fp32" else {"state": state}
    optimizer = make(name, named(params), seed=3, **options)
    advance(name, optimizer, params, steps=2)
    twin = HOWS[how](optimizer)
    others = params_of(twin)
    assert agree(picture(optimizer), picture(twin))
    assert not {p.data_ptr() for p in params} & {p.data_ptr() for p in others}
    kept = picture(optimizer)
    advance(name, twin, others, steps=2)
    assert agree(picture(optimizer), kept)
    advance(name, optimizer, params, steps=2)
    assert equal(params, others)
    kept, other = picture(optimizer), picture(twin)
    for one in (kept, other):
        for calls in (one["own"][2], _calls_of(one["saved"])):
            calls.pop("seconds", None)
    assert agree(kept["state"], other["state"])
    assert agree(kept["own"], other["own"])


def _calls_of(saved: Any) -> dict[str, Any]:
    """The ledger within a state dict, wherever it lies."""
    if isinstance(saved, dict):
        for key, value in saved.items():
            found = value if key == "calls" and isinstance(value, dict) else _calls_of(value)
            if found:
                return found
    if isinstance(saved, list):
        for value in saved:
            if found := _calls_of(value):
                return found
    return {}


@how
@every
def test_a_copy_of_a_copy_saves_the_present(name: str, how: str) -> None:
    """A checkpoint made from a copy holds what the copy did, not what it once was."""
    params = start()
    optimizer = make(name, named(params))
    advance(name, optimizer, params)
    twin = HOWS[how](HOWS[how](optimizer))
    others = params_of(twin)
    advance(name, twin, others, steps=2)
    fresh_params = [nn.Parameter(p.detach().clone()) for p in others]
    fresh = make(name, named(fresh_params))
    fresh.load_state_dict(copy.deepcopy(twin.state_dict()))
    assert fresh.steps == 3
    advance(name, fresh, fresh_params)
    advance(name, twin, others)
    assert equal(fresh_params, others)


@how
@every
def test_a_copy_leaves_behind_what_is_attached(name: str, how: str) -> None:
    """A scheduler goes on with the original alone, and the copy's step is its own."""
    cases = ("scheduler", "one_cycle", "hooks")
    check_all(cases, lambda attached: _leaves_behind(name, how, attached))


def _leaves_behind(name: str, how: str, attached: str) -> None:
    params = start()
    optimizer = make(name, named(params))
    scheduler: Any = None
    if attached == "scheduler":
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    elif attached == "one_cycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.1, total_steps=9, cycle_momentum=False
        )
    else:
        optimizer.register_step_pre_hook(look)
        optimizer.register_step_post_hook(look)
        optimizer.register_state_dict_post_hook(look)
        optimizer.register_load_state_dict_pre_hook(look)
    advance(name, optimizer, params)
    twin = HOWS[how](optimizer)
    others = params_of(twin)
    before, given = copies(params), twin.param_groups[0]["lr"]
    advance(name, twin, others)
    if scheduler is not None:
        scheduler.step()
    assert twin.param_groups[0]["lr"] == given
    assert equal(params, before)
    assert not equal(others, before)
    for group in optimizer.param_groups:
        group["lr"] = given
    advance(name, optimizer, params)
    assert equal(params, others)
    later: Any = torch.optim.lr_scheduler.ExponentialLR(twin, 0.5)
    advance(name, twin, others)
    later.step()
    assert twin.param_groups[0]["lr"] < given


@how
@every
def test_a_copy_with_its_model_stays_tied_to_it(name: str, how: str) -> None:
    """Copied together, the optimizer steps the copied model."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = make(name, model)
    x = torch.linspace(-1.0, 1.0, 15).reshape(5, 3)

    def step(which: nn.Module, by: Any) -> None:
        by.step(closure_for(name, lambda: (which(x) ** 2).mean()))

    step(model, optimizer)
    other, twin = HOWS[how]((model, optimizer))
    before = copies(model.parameters())
    for _ in range(3):
        step(other, twin)
    assert equal(copies(model.parameters()), before)
    for _ in range(3):
        step(model, optimizer)
    assert equal(copies(model.parameters()), copies(other.parameters()))
    assert set(map(id, params_of(twin))) == set(map(id, other.parameters()))


@how
@every
def test_a_copy_keeps_every_option(name: str, how: str) -> None:
    params = start()
    given = {"seed": 7, "maximize": True, "nonfinite": "skip", "budget": Budget(steps=9)}
    optimizer = make(name, [{"params": named(params), "note": "mine"}], **given)
    twin = HOWS[how](optimizer)
    assert (twin.seed, twin.maximize, twin.nonfinite) == (7, True, "skip")
    assert twin.budget is not None
    assert twin.budget.steps == 9
    assert twin.engine.mode == optimizer.engine.mode
    assert twin.param_groups[0]["note"] == "mine"
    assert dict(twin.defaults) == dict(optimizer.defaults)
    public = {key for key in vars(optimizer) if not key.startswith("_") and key != "step"}
    assert public <= set(vars(twin))


@every
def test_a_copy_may_be_changed_alone(name: str) -> None:
    """Groups, state and counters of the original do not follow those of the copy."""
    params = start()
    optimizer = make(name, named(params), lr=torch.tensor(0.05))
    advance(name, optimizer, params)
    twin = copy.deepcopy(optimizer)
    kept = picture(optimizer)
    twin.param_groups[0]["lr"].fill_(1.0)
    twin.param_groups[0]["own"] = 1
    for entry in twin.state.values():
        for value in entry.values():
            if isinstance(value, Tensor):
                value.fill_(3)
    twin.calls.values += 100
    twin.seed = 99
    twin.state.clear()
    assert agree(picture(optimizer), kept)


@pytest.mark.parametrize("name", PLAIN)
def test_a_shallow_copy_steps_the_same_parameters(name: str) -> None:
    """``copy.copy`` of a torch.optim optimizer shares groups and state."""
    params, others = start(), start()
    one, two = make(name, named(params)), make(name, named(others))
    advance(name, one, params)
    advance(name, two, others)
    half = copy.copy(one)
    loss_of(params).backward()
    half.step()
    half.zero_grad()
    advance(name, two, others)
    assert equal(params, others)


@pytest.mark.parametrize("state", ["fp32", "8bit"])
@pytest.mark.parametrize("how", ["pickle", "file", "state_dict"])
def test_a_pickle_takes_the_room_of_what_it_holds(state: str, how: str) -> None:
    p = nn.Parameter(torch.ones(1000, 1000))
    optimizer = anyorder.AdamW([p], state=state, engine="eager")  # type: ignore[call-arg]
    (p * 2).sum().backward()
    optimizer.step()
    held = [p, *(v for v in optimizer.state[p].values() if isinstance(v, Tensor))]
    size = sum(t.numel() * t.element_size() for t in held)
    if how == "pickle":
        written = len(pickle.dumps(optimizer))
    else:
        file = io.BytesIO()
        torch.save(optimizer.state_dict() if how == "state_dict" else optimizer, file)
        written = file.tell()
    assert written < 1.5 * size


@pytest.mark.parametrize("count", [1, 200])
def test_a_state_dict_of_small_parameters_takes_the_room_of_what_it_holds(count: int) -> None:
    """State that lies in one buffer is not written once for each parameter."""
    params = start(*[(64, 60)] * count)
    optimizer = make("adamw", named(params))
    for p in params:
        p.grad = p.detach()
    optimizer.step()
    size = 3 * sum(p.numel() * p.element_size() for p in params)
    for what in (optimizer, optimizer.state_dict(), {"entry": optimizer.state[params[0]]}):
        file = io.BytesIO()
        torch.save(what, file)
        assert file.tell() < 3 * size + 10_000


SPAWNED = """
import io, pickle, sys, torch
import anyorder
from anyorder.testing.worlds import in_parts
found = {}
for name, optimizer in pickle.load(sys.stdin.buffer).items():
    params = [p for group in optimizer.param_groups for p in group["params"]]
    closure = lambda: torch.stack([((p.double() - 0.2) ** 2).sum() for p in params]).sum()
    for _ in range(2):
        optimizer.step(in_parts(closure) if name == "sso" else closure)
    found[name] = ([p.detach() for p in params], optimizer.steps)
out = io.BytesIO()
torch.save(found, out)
sys.stdout.buffer.write(out.getvalue())
"""


def test_a_pickle_goes_on_in_another_process() -> None:
    """With a scheduler attached; every method at once, since starting a process takes time."""
    made: dict[str, Any] = {}
    worlds: dict[str, list[nn.Parameter]] = {}

    def closure_over(params: list[nn.Parameter]) -> Callable[[], Tensor]:
        return lambda: torch.stack([((p.double() - 0.2) ** 2).sum() for p in params]).sum()

    for name in METHODS:
        worlds[name] = start()
        made[name] = make(name, named(worlds[name]), seed=5)
        torch.optim.lr_scheduler.StepLR(made[name], 10)
        made[name].step(closure_for(name, closure_over(worlds[name])))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SPAWNED],
        input=pickle.dumps(made),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr.decode()
    found = torch.load(io.BytesIO(done.stdout))
    for name, (values, steps) in found.items():
        for _ in range(2):
            made[name].step(closure_for(name, closure_over(worlds[name])))
        assert steps == 3
        assert equal(values, copies(worlds[name])), name
