"""Read, process, write: naive float64 references, invariances, limits."""

from __future__ import annotations

import math

import pytest
import torch

from anyorder_studies.vinyals2015ordermatters.inputs import (
    OrderError,
    PointerModel,
    SetEncoder,
    attend,
)


def sets(n: int = 4, m: int = 5, dim: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, m, dim, generator=generator, dtype=torch.float64)


def naive_lstm(cell: torch.nn.LSTMCell, x, h, c):
    """One LSTM step from its textbook equations."""
    gates = cell.weight_ih @ x + cell.bias_ih + cell.weight_hh @ h + cell.bias_hh
    i, f, g, o = gates.split(len(h))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@torch.no_grad()
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_process_against_a_naive_loop(steps: int):
    encoder = SetEncoder(2, width=6, steps=steps).double()
    items = sets()
    memory, summary = encoder(items)
    for n in range(len(items)):
        m = [encoder.read(item) for item in items[n]]
        h = c = torch.zeros(6, dtype=torch.float64)
        q_star = torch.zeros(12, dtype=torch.float64)
        for _ in range(steps):
            h, c = naive_lstm(encoder.cell, q_star, h, c)
            weights = [math.exp(float(item @ h)) for item in m]
            r = sum(w / sum(weights) * item for w, item in zip(weights, m, strict=True))
            q_star = torch.cat([h, r])
        torch.testing.assert_close(summary[n], q_star)
        torch.testing.assert_close(memory[n], torch.stack(m))


@torch.no_grad()
def test_summary_ignores_order_and_padding():
    encoder = SetEncoder(2, width=8, steps=3).double()
    items = sets()
    _, summary = encoder(items)
    _, shuffled = encoder(items[:, torch.tensor([3, 0, 4, 1, 2])])
    torch.testing.assert_close(shuffled, summary)
    padded = torch.cat([items, torch.full((4, 2, 2), 9.0, dtype=torch.float64)], dim=1)
    mask = torch.tensor([[True] * 5 + [False] * 2] * 4)
    torch.testing.assert_close(encoder(padded, mask)[1], summary)


@torch.no_grad()
def test_an_lstm_over_the_elements_does_not_ignore_order():
    items = sets()
    order = torch.arange(5).expand(4, -1)
    shuffle = torch.tensor([3, 0, 4, 1, 2])
    undo = shuffle.argsort()
    found = {}
    for encoder in ("set", "sequence"):
        model = PointerModel(2, width=8, encoder=encoder).double()
        same = model.log_prob(items, order)
        # The same elements in the same target order, stored in another order.
        found[encoder] = (model.log_prob(items[:, shuffle], undo.expand(4, -1)) - same).abs().max()
    assert found["set"] < 1e-12 < 1e-4 < found["sequence"]


@torch.no_grad()
def test_attention_reads_an_average():
    memory = sets(3, 4, 5)
    mask = torch.ones(3, 4, dtype=torch.bool)
    even = attend(memory, torch.zeros(3, 5, dtype=torch.float64), mask)
    torch.testing.assert_close(even, memory.mean(dim=1))
    mask[:, 1:] = False
    torch.testing.assert_close(attend(memory, memory[:, 2], mask), memory[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["set", "sequence"])
@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("glimpses", [0, 2])
def test_probabilities_of_all_pointings_add_up_to_one(encoder, repeats: bool, glimpses: int):
    model = PointerModel(
        2, width=6, steps=2, glimpses=glimpses, encoder=encoder, repeats=repeats
    ).double()
    items = sets(1, 3)
    total = 0.0
    for order in torch.cartesian_prod(*[torch.arange(3)] * 3):
        total += float(model.log_prob(items, order[None]).exp())
        if not repeats and len(set(order.tolist())) < 3:
            assert float(model.log_prob(items, order[None])) == -math.inf
    assert total == pytest.approx(1.0)


@torch.no_grad()
def test_decoding_is_greedy():
    model = PointerModel(2, width=6).double()
    items = sets(6, 4)
    found = model.decode(items, 3)
    for position in range(3):
        scores = []
        for candidate in range(4):
            order = found[:, : position + 1].clone()
            order[:, position] = candidate
            scores.append(model.log_prob(items, order))
        assert torch.equal(torch.stack(scores).argmax(dim=0), found[:, position])


@torch.no_grad()
def test_padding_is_never_pointed_at():
    model = PointerModel(2, width=6).double()
    mask = torch.tensor([[True, True, False, False]] * 6)
    assert int(model.decode(sets(6, 4), 4, mask).max()) <= 1


def test_learns_to_find_the_largest_of_three():
    torch.manual_seed(0)
    model = PointerModel(1, width=24, steps=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        items = torch.rand(64, 3, 1)
        loss = -model.log_prob(items, items[..., 0].argmax(dim=1, keepdim=True)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    items = torch.rand(500, 3, 1)
    right = model.decode(items, 1)[:, 0] == items[..., 0].argmax(dim=1)
    assert right.double().mean() > 0.85


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SetEncoder(0), "dim, width >= 1"),
        (lambda: SetEncoder(2, steps=-1), "steps >= 0"),
        (lambda: PointerModel(2, encoder="tree"), "'tree'"),
        (lambda: PointerModel(2, glimpses=-1), "glimpses >= 0"),
        (lambda: SetEncoder(2)(torch.zeros(3, 2)), "shape \\(n, m, dim\\)"),
        (lambda: SetEncoder(2)(torch.zeros(1, 3, 2), torch.ones(1, 3)), "boolean mask"),
        (
            lambda: SetEncoder(2)(torch.zeros(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool)),
            "at least one element",
        ),
        (
            lambda: PointerModel(2, encoder="sequence").decode(
                torch.zeros(1, 2, 2), 1, torch.tensor([[True, False]])
            ),
            "sets of one size",
        ),
        (lambda: PointerModel(2).log_prob(torch.zeros(2, 3, 2), torch.zeros(3)), "expected orders"),
    ],
)
def test_bad_input_is_explained(call, message: str):
    with pytest.raises(OrderError, match=message):
        call()
