"""The base of every method, beyond what the contract suite checks on each of them."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import anyorder
from anyorder import SGD, AdamW, MeZO, Optimizer, methods
from anyorder.hyper import hyper
from anyorder.rules import Rule
from anyorder.rules.descent import lr_of


def quadratic(x: Tensor) -> Any:
    return lambda: (x**2).sum()


def test_names_come_from_the_module_and_survive_wrapping() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    assert list(SGD(model).named_params()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(SGD(model.parameters()).named_params()) == [f"param.{i}" for i in range(4)]
    named = SGD(model.named_parameters())
    assert list(named.named_params()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_groups_have_their_own_settings() -> None:
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = SGD([{"params": [a], "lr": 0.1}, {"params": [("b", b)]}], lr=0.2, engine="eager")
    optimizer.step(lambda: (a + b).sum())
    assert a.tolist() == pytest.approx([0.9, 0.9]) and b.tolist() == pytest.approx([0.8, 0.8])
    c = nn.Parameter(torch.ones(1))
    optimizer.add_param_group({"params": [c], "lr": 0.5})
    optimizer.step(lambda: (a + b).sum() + c.sum())
    assert c.item() == pytest.approx(0.5)


def test_parameters_that_miss_a_gradient_stand_still_and_keep_their_own_count() -> None:
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    ours = AdamW([a, b], lr=0.1, engine="eager")
    c, d = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    theirs = torch.optim.AdamW([c, d], lr=0.1)
    for step in range(6):
        ours.step(
            lambda step=step: (a**2).sum() + (b**2).sum() * (step % 2) if step % 2 else (a**2).sum()
        )
        theirs.zero_grad()
        ((c**2).sum() + (d**2).sum() if step % 2 else (c**2).sum()).backward()
        theirs.step()
    assert torch.allclose(a, c, atol=1e-6) and torch.allclose(b, d, atol=1e-6)
    assert [ours.state[p]["step"] for p in (a, b)] == [6, 3]


def test_signature_is_shown_whole() -> None:
    shown = inspect.signature(AdamW).parameters
    assert next(iter(shown)) == "params" and {"lr", "betas", "engine", "nonfinite"} <= set(shown)
    assert shown["lr"].default == 1e-3
    assert all(p.kind is p.KEYWORD_ONLY for name, p in shown.items() if name != "params")


def test_schedulers_of_torch_work() -> None:
    x = nn.Parameter(torch.ones(1))
    optimizer = SGD([x], lr=1.0, engine="eager")
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=10, cycle_momentum=False
    )
    seen: list[float] = []
    for _ in range(9):
        optimizer.step(quadratic(x))
        schedule.step()
        seen.append(optimizer.lr)
    assert seen[-1] < seen[0] < max(seen)


def test_hooks_and_zero_grad_of_torch_work() -> None:
    x = nn.Parameter(torch.ones(1))
    optimizer = SGD([x], engine="eager")
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    x.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert seen == ["before", "after"] and x.grad is None


def test_a_gradient_scaler_drives_the_ordinary_loop() -> None:
    model, x = nn.Linear(3, 1), torch.randn(5, 3)
    optimizer, scaler = AdamW(model, engine="eager"), torch.amp.GradScaler("cpu", init_scale=4.0)
    before = model.weight.detach().clone()
    scaler.scale(model(x).pow(2).mean()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert not torch.equal(before, model.weight)


def test_late_parameters_and_moves_to_another_dtype() -> None:
    model = nn.Linear(2, 2)
    optimizer = AdamW(model, engine="eager")
    optimizer.step(lambda: model.weight.sum())
    optimizer.step(lambda: model.weight.sum() + model.bias.sum())
    assert optimizer.state[model.bias]["step"] == 1


def test_explain_says_what_is_frozen_and_what_is_wrong() -> None:
    model = nn.Linear(2, 2).bfloat16()
    model.bias.requires_grad_(False)
    text = MeZO(model, eps=1e-6).explain()
    assert "frozen" in text and "below the resolution" in text and "order 0" in text


def signs_(param: Tensor, grad: Tensor, *, lr: Tensor) -> None:
    param.sub_(grad.sign() * lr)


def test_a_method_in_one_class() -> None:
    class Signs(Optimizer):
        """Signs of the gradient."""

        rule = Rule(signs_, scalars=lr_of)
        lr: float = hyper(0.1, gt=0, doc="step size")

    x = nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = Signs([x], engine="eager")
    optimizer.step(quadratic(x))
    assert x.tolist() == pytest.approx([0.9, -0.9]) and optimizer.lr == 0.1


def test_the_package_offers_every_method_by_its_class_name() -> None:
    for name in methods.names():
        assert getattr(anyorder, methods.get(name).__name__) is methods.get(name)
    assert "AdamW" in dir(anyorder)
    with pytest.raises(AttributeError):
        _ = anyorder.Adamw  # type: ignore[attr-defined]


def test_unknown_methods_name_the_nearest() -> None:
    with pytest.raises(methods.UnknownMethodError, match="'adamw'"):
        methods.get("adamww")
    assert methods.get("rank-sgd") is methods.get("rank_sgd")


def test_a_step_on_a_small_tensor_makes_few_calls() -> None:
    """Time is too noisy to be a test; the functions of this package that a step runs are not."""
    x = nn.Parameter(torch.ones(40))
    x.grad = torch.ones(40)
    root = str(Path(anyorder.__file__).parent)

    def calls(run: Any) -> int:
        found: list[str] = []

        def look(frame: FrameType, event: str, argument: object) -> None:
            if event == "call" and frame.f_code.co_filename.startswith(root):
                found.append(frame.f_code.co_name)

        run()
        sys.setprofile(look)
        try:
            run()
        finally:
            sys.setprofile(None)
        return len([name for name in found if not name.startswith("<")])

    first, zeroth = AdamW([x], engine="eager"), MeZO([x], engine="eager")
    assert calls(first.step) <= 55
    assert calls(lambda: first.step(quadratic(x))) <= 81
    assert calls(lambda: zeroth.step(quadratic(x))) <= 160


def test_profilers_see_a_step() -> None:
    x = nn.Parameter(torch.ones(2))
    x.grad = torch.ones(2)
    optimizer = AdamW([x], engine="eager")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        optimizer.step()
    assert "Optimizer.step#AdamW.step" in {event.key for event in seen.key_averages()}
