"""Reused features give the values of whole forward passes, bit for bit, with less work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods._features import Features, blocks_of


class Skip(nn.Module):
    """Blocks that are connected across each other."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        a = self.blocks[0](x)
        b = torch.tanh(self.blocks[2](a))  # not in the order of the list
        c = self.blocks[1](a + b)
        return self.blocks[3](torch.tanh(c) + a)


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))


def inplace() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 8), nn.Hardtanh(-0.3, 0.3, inplace=True), nn.Linear(8, 6),
        nn.LeakyReLU(0.5, inplace=True), nn.Linear(6, 2),
    )  # fmt: skip


def noisy() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 6), nn.Dropout(0.3), nn.Linear(6, 2)
    )


def normed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "in place": inplace,
    "dropout": noisy,
    "batch norm": normed,
    "skip": Skip,
}


def made(kind: str) -> tuple[nn.Module, Features, Tensor]:
    torch.manual_seed(1)
    model = MODELS[kind]()
    given = list(model.blocks) if isinstance(model, Skip) else None
    return model, Features(blocks_of(model, given)), torch.randn(5, 6)


@torch.no_grad()
@pytest.mark.parametrize("kind", MODELS)
def test_values_are_those_of_whole_forward_passes(kind: str) -> None:
    model, features, x = made(kind)
    state = torch.get_rng_state()
    with features.recording():
        base = model(x)
    assert not features.why_not
    for param in model.parameters():
        position = features.owner(param)
        for _ in range(2):  # the second time, what was recorded is still whole
            kept = param.clone()
            param[0] += 0.1
            torch.set_rng_state(state)
            with features.reusing(position):
                reused = model(x)
            torch.set_rng_state(state)
            assert torch.equal(reused, model(x))
            cancelled = kind == "batch norm" and param is model[0].bias  # type: ignore[index]
            assert torch.equal(reused, base) == cancelled
            param.copy_(kept)
    assert all("forward" not in part.__dict__ for part in model.modules())


@torch.no_grad()
def test_only_later_blocks_are_computed() -> None:
    model, features, x = made("plain")
    ran: list[int] = []
    kinds = {nn.Linear: nn.Linear.forward}
    with features.recording():
        model(x)

    def counted(self: nn.Linear, given: Tensor) -> Tensor:
        ran.append(self.in_features * self.out_features)
        return kinds[nn.Linear](self, given)

    nn.Linear.forward = counted  # type: ignore[method-assign]
    try:
        for position, expected in ((0, [48, 48, 12]), (2, [48, 12]), (3, [12]), (4, [12])):
            ran.clear()
            with features.reusing(position):
                model(x)
            assert ran == expected
    finally:
        nn.Linear.forward = kinds[nn.Linear]  # type: ignore[method-assign]


@torch.no_grad()
def test_the_cost_of_a_block_is_that_of_the_fastest_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model, features, x = made("plain")
    for ticks in ([0, 50, 60, 70, 80, 100], [0, 10, 30, 31, 32, 40], [0, 1, 2, 3, 4, 90]):
        times = iter(ticks)
        monkeypatch.setattr("anyorder.methods._features.time.perf_counter", lambda t=times: next(t))
        with features.recording():
            model(x)
    assert [features.cost(i) for i in range(5)] == [40, 30, 10, 9, 8]


def test_tied_parameters_belong_to_the_first_block_that_runs() -> None:
    model, features, x = made("plain")
    shared = nn.Parameter(torch.randn(6))
    model[2].bias = shared  # type: ignore[union-attr]
    model[3].extra = shared  # type: ignore[union-attr]
    with features.recording(), torch.no_grad():
        model(x)
    assert features.owner(shared) == 2
    assert features.owner(nn.Parameter(torch.ones(1))) == 0  # in no block: nothing is reused


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(self.part(x)))


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part, self.head = nn.LSTM(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(x)[0])


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "why"), [(Twice, "more than once"), (Lstm, "one ordinary"), (Unused, "did not run")]
)
def test_models_whose_outputs_cannot_be_reused(kind: Any, why: str) -> None:
    model = kind()
    features = Features(blocks_of(model, [model.part, model.head]))
    with features.recording():
        base = model(torch.ones(3, 6))
    assert why in features.why_not
    model.part.requires_grad_(False)
    with features.reusing(1):  # nothing is reused
        for param in model.part.parameters():
            param += 1.0
        assert torch.equal(base, model(torch.ones(3, 6))) == (kind is Unused)
    assert features.cost(0) == features.cost(1) == 1.0


def test_which_blocks_are_known() -> None:
    model = plain()
    assert blocks_of(model, None) == list(model.children())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is deprecated
        scripted: Any = torch.jit.script(model)
    for unknown in (None, nn.Linear(2, 2), Twice(), scripted, nn.Sequential(scripted)):
        assert blocks_of(unknown, None) == []
    with pytest.raises(HyperError, match="contain each other"):
        blocks_of(model, [model, model[0]])
    with pytest.raises(HyperError, match="expected modules, got str"):
        blocks_of(model, ["0"])  # type: ignore[list-item]


def test_an_error_leaves_the_model_as_it_was() -> None:
    model, features, x = made("plain")
    with pytest.raises(KeyError), features.recording():
        raise KeyError
    assert all("forward" not in part.__dict__ for part in model.modules())
    kept = lambda given: given  # noqa: E731
    model[1].forward = kept  # type: ignore[method-assign, union-attr]
    with features.recording(), torch.no_grad():
        model(x)
    assert model[1].forward is kept  # type: ignore[union-attr]
