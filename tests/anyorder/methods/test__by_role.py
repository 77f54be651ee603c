"""Groups divided by role: state, step sizes, late groups, what is asked and what is said."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods._by_role import ADAMW, ByRole
from anyorder.methods.adamw import AdamW
from anyorder.methods.muon import MUON, Muon
from anyorder.methods.scale import SCALE
from anyorder.model.roles import RoleError, RoleTypeError, RoleWarning


def model() -> nn.Sequential:
    return nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 9))


def loss_of(net: nn.Module) -> Tensor:
    return net(torch.arange(9)).square().mean()


def rules(optimizer: ByRole) -> dict[str, str]:
    return {
        name: optimizer.label(name, group)
        for group in optimizer.param_groups
        for name in group["param_names"]
    }


def step_sizes(optimizer: ByRole) -> list[tuple[float, float]]:
    """The step size of the method's own rule and of AdamW, by group."""
    return [
        (
            group["lr"],
            optimizer.adamw_step_size(group),
        )
        for group in optimizer.param_groups
    ]


EXPECTED = {
    "0.weight": ADAMW, "1.weight": MUON, "1.bias": ADAMW, "2.weight": ADAMW, "2.bias": ADAMW,
    "3.weight": ADAMW, "3.bias": ADAMW,
}  # fmt: skip


def test_a_module_says_it_all() -> None:
    optimizer = Muon(model(), engine="eager")
    assert rules(optimizer) == EXPECTED
    assert len(optimizer.param_groups) == 1
    assert optimizer.module is not None
    assert optimizer.assignment("0.weight").role == "embedding"


def test_groups_beside_the_module() -> None:
    net = model()
    groups: list[dict[str, Any]] = [
        {"params": list(net[1].named_parameters(prefix="own")), "lr": 0.5},
        {"params": [p for m in (net[0], net[2], net[3]) for p in m.parameters()]},
    ]
    optimizer = Muon(groups, roles=net, engine="eager")
    assert rules(optimizer)["own.weight"] == MUON
    assert list(rules(optimizer).values()).count(MUON) == 1
    assert step_sizes(optimizer) == [
        (0.5, pytest.approx(0.0075)),
        (0.02, pytest.approx(0.0003)),
    ]


def test_names_say_what_the_module_does_not() -> None:
    optimizer = Muon(model(), roles={"1.*": "vector", "3.weight": "head"}, engine="eager")
    assert set(rules(optimizer).values()) == {ADAMW}


def test_bare_parameters_are_warned_of_unless_something_is_said() -> None:
    net = model()
    with pytest.warns(RoleWarning, match=re.escape("Muon(model)")) as caught:
        guessed = Muon(net.named_parameters(), engine="eager")
    assert len(caught) == 1
    assert rules(guessed)["0.weight"] == MUON
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Muon(net.named_parameters(), roles="shape", engine="eager")
        told = Muon(net.named_parameters(), roles={"0.*": "embedding", "3.weight": "head"})
    assert rules(told) == EXPECTED


@pytest.mark.parametrize("method", [Muon, SCALE])
def test_a_model_without_matrices_is_refused_and_bare_vectors_are_warned_of(
    method: type[ByRole],
) -> None:
    vectors = nn.Sequential(nn.LayerNorm(3), nn.PReLU())
    with pytest.raises(RoleError, match=f"{method.__name__} has no matrix .* Use AdamW"):
        method(vectors, engine="eager")
    with pytest.warns(RoleWarning, match="has no matrix for its own rule") as caught:
        guessed = method([nn.Parameter(torch.ones(3))], engine="eager")
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        meant = method(vectors, engine="eager", roles={})
        method([nn.Parameter(torch.ones(3))], engine="eager", roles="shape")
    assert set(rules(guessed).values()) == set(rules(meant).values()) == {ADAMW}


def test_guesses_are_warned_of() -> None:
    with pytest.warns(RoleWarning, match=r"2\.weight is treated as the output layer"):
        Muon(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 4)))


def test_an_embedding_as_a_matrix_is_warned_of() -> None:
    with pytest.warns(RoleWarning, match=r"0\.weight is treated as a hidden matrix"):
        optimizer = Muon(model(), roles={"0.weight": "matrix"})
    assert rules(optimizer)["0.weight"] == MUON


def test_shape_is_asked_only_where_there_is_no_module() -> None:
    assert rules(Muon(model(), roles="shape")) == EXPECTED


@pytest.mark.parametrize("roles", ["shapes", "matrix", 3, [("1.weight", "head")]])
def test_other_words_are_refused(roles: Any) -> None:
    with pytest.raises(RoleTypeError, match="'shape'"):
        Muon(model(), roles=roles)


def test_a_vector_as_a_matrix_is_refused() -> None:
    with pytest.raises(RoleError, match=r"1\.bias has shape \(4,\)"):
        Muon(model(), roles={"1.bias": "matrix"})


def test_explains_rule_and_reason_of_each_parameter() -> None:
    text = Muon(model(), engine="eager").explain()
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert lines["1.weight"].endswith("matrix: muon (weight of Linear)")
    assert "embedding: adamw" in lines["0.weight"]
    assert "head: adamw (output layer: " in lines["3.weight"]
    assert "vector: adamw" in lines["2.weight"]
    assert len(lines) == len(EXPECTED)


# State and step sizes --------------------------------------------------------------------------


def test_each_rule_keeps_its_own_state() -> None:
    net = model()
    optimizer = Muon(net, engine="eager")
    optimizer.step(lambda: loss_of(net))
    kept = {n: set(optimizer.state[p]) - {"step"} for n, p in net.named_parameters()}
    adamw = {"exp_avg", "exp_avg_sq"}
    assert kept == {n: {"momentum_buffer"} if r == MUON else adamw for n, r in EXPECTED.items()}
    assert {s["step"] for s in optimizer.state.values()} == {1}


def test_the_partner_is_adamw_bit_for_bit() -> None:
    net = model()
    twin = copy.deepcopy(net)
    settings: dict[str, Any] = {"betas": (0.8, 0.9), "eps": 1e-6}
    partner: dict[str, Any] = {f"adamw_{name}": value for name, value in settings.items()}
    partner |= {"adamw_lr": 0.02, "weight_decay": 0.1}
    optimizer = Muon(net, roles={"*.weight": "vector"}, engine="eager", **partner)
    other = AdamW(twin, lr=0.02, weight_decay=0.1, engine="eager", **settings)
    for _ in range(5):
        optimizer.step(lambda: loss_of(net))
        other.step(lambda: loss_of(twin))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_schedulers_move_both_step_sizes() -> None:
    net = model()
    optimizer = Muon(net, lr=0.1, adamw_lr=0.01, engine="eager")
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step(lambda: loss_of(net))
    scheduler.step()
    assert step_sizes(optimizer) == [(0.05, pytest.approx(0.005))]
    for group in optimizer.param_groups:
        group["lr"] = 0.2
    assert step_sizes(optimizer) == [(0.2, pytest.approx(0.02))]


def test_a_group_may_have_a_partner_of_its_own() -> None:
    net = model()
    pairs = list(net.named_parameters())
    optimizer = Muon(
        [{"params": pairs[:3], "lr": 0.1}, {"params": pairs[3:], "adamw_lr": 0.5}], roles=net
    )
    first, second = step_sizes(optimizer)
    assert first == (0.1, pytest.approx(0.0015)) and second == (0.02, pytest.approx(0.5))


def test_late_groups_are_divided_too() -> None:
    net = model()
    head = net[3]
    optimizer = Muon([p for m in net[:3] for p in m.parameters()], roles=net, engine="eager")
    optimizer.add_param_group({"params": list(head.named_parameters(prefix="late")), "lr": 1.0})
    assert rules(optimizer)["late.weight"] == ADAMW
    assert step_sizes(optimizer)[-1] == (1.0, pytest.approx(0.015))
    with pytest.raises(HyperError, match="adamw_lr"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "adamw_lr": -1.0})
    before = len(optimizer.param_groups)
    with pytest.raises(HyperError, match="lr"):
        optimizer.add_param_group({"params": [("new", nn.Parameter(torch.ones(2)))], "lr": "fast"})
    assert len(optimizer.param_groups) == before
    with pytest.raises(KeyError):
        optimizer.assignment("new")


def test_checkpoints_copies_and_pickles() -> None:
    net = model()
    optimizer = Muon(net, engine="eager")
    optimizer.step(lambda: loss_of(net))
    saved = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    again = model()
    other = Muon(again, engine="eager")
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    twin, copied = copy.deepcopy((net, optimizer))
    back, pickled = pickle.loads(pickle.dumps((net, optimizer)))
    for held, stepper in ((net, optimizer), (again, other), (twin, copied), (back, pickled)):
        stepper.step(lambda held=held: loss_of(held))
        for a, b in zip(held.parameters(), net.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("method", [Muon, SCALE])
@pytest.mark.parametrize(
    "options",
    [{"state": "8bit"}, {"state": "bf16"}, {"cautious": True}, {"clip_norm": 1e-3},
     {"cautious": True, "weight_decay": 0.1, "state": "8bit"}],
    ids=str,
)  # fmt: skip
def test_options_of_all_methods(method: type[ByRole], options: dict[str, Any]) -> None:
    """They work, and stay near the plain run (masks and clips change it, but not its course)."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Embedding(99, 64), nn.Linear(64, 64), nn.Linear(64, 99))
    twin = copy.deepcopy(net)
    targets = torch.arange(9).roll(1)
    runs: list[float] = []
    for held, given in ((net, options), (twin, {})):
        optimizer = method(held, lr=0.01, adamw_lr=0.01, engine="eager", **given)
        closure = lambda held=held: nn.functional.cross_entropy(held(torch.arange(9)), targets)  # noqa: E731
        for _ in range(60):
            optimizer.step(closure)
        runs.append(closure().item())
    assert runs[0] < 0.5 and runs[1] < 0.5
    changed = [
        not torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True)
    ]
    assert any(changed)


@pytest.mark.parametrize("method", [Muon, SCALE])
def test_micro_batches_are_averaged_before_anything_else(method: type[ByRole]) -> None:
    net = model().double()
    twin = copy.deepcopy(net)
    first, second = method(net, engine="eager"), method(twin, engine="eager")
    halves = [torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6, 7])]
    for _ in range(3):
        first.step([lambda h=h: net(h).square().mean() for h in halves])
        second.step(lambda: twin(torch.arange(8)).square().mean())
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", [Muon, SCALE])
def test_coupled_decay_is_refused(method: type[ByRole]) -> None:
    with pytest.raises(HyperError, match="decoupled_weight_decay"):
        method(model(), weight_decay=0.1, decoupled_weight_decay=False)


def test_the_signature_shows_roles() -> None:
    for method in (Muon, SCALE):
        parameters = inspect.signature(method).parameters
        assert list(parameters)[:2] == ["params", "roles"]
        assert {"lr", "adamw_lr", "engine", "clip_norm"} <= set(parameters)


def test_frozen_parameters_have_roles_and_stay() -> None:
    net = model()
    net[1].weight.requires_grad_(False)
    before = net[1].weight.clone()
    optimizer = Muon(net, engine="eager")
    optimizer.step(lambda: loss_of(net))
    assert torch.equal(net[1].weight, before)
    assert "frozen" in optimizer.explain()
