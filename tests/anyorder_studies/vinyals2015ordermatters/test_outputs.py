"""The chain model and the search over orders, against enumeration of all orders."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from anyorder_studies.vinyals2015ordermatters.inputs import OrderError, SetEncoder
from anyorder_studies.vinyals2015ordermatters.outputs import (
    ChainModel,
    best_order,
    order_log_prob,
    order_search_loss,
    sample_order,
    set_log_prob,
)


def model(tokens: int = 6, seed: int = 0, context: int = 0) -> ChainModel:
    torch.manual_seed(seed)
    made = ChainModel(tokens, width=8, context=context).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(4.0)  # far from uniform, so that orders differ
    return made


SETS = torch.tensor([[0, 2, 4], [5, 1, 3]])
ORDERS = list(itertools.permutations(range(3)))


def all_log_probs(chain: ChainModel) -> torch.Tensor:
    """Log-probability of each of the six orders: (2, 6)."""
    with torch.no_grad():
        columns = [order_log_prob(chain, SETS, torch.tensor([o, o])) for o in ORDERS]
    return torch.stack(columns, dim=1)


@torch.no_grad()
def test_chain_rule_adds_up_to_one():
    chain = model(4)
    sequences = torch.cartesian_prod(*[torch.arange(4)] * 3)
    identity = torch.arange(3).expand(len(sequences), -1)
    assert float(order_log_prob(chain, sequences, identity).exp().sum()) == pytest.approx(1.0)


@torch.no_grad()
def test_order_log_prob_against_a_loop():
    chain = model()
    order = torch.tensor([[2, 0, 1], [1, 2, 0]])
    found = order_log_prob(chain, SETS, order)
    for i in range(2):
        sequence = [int(SETS[i, j]) for j in order[i]]
        total = 0.0
        for t, token in enumerate(sequence):
            prefix = torch.tensor([[*sequence[:t], 0]])
            total += float(chain(prefix)[0, t, token])
        assert float(found[i]) == pytest.approx(total)


def test_best_order_is_the_best_of_all():
    chain = model()
    everything = all_log_probs(chain)
    orders, values = best_order(chain, SETS)
    torch.testing.assert_close(values, everything.max(dim=1).values)
    for i in range(2):
        assert ORDERS[int(everything[i].argmax())] == tuple(orders[i].tolist())


def test_sampler_draws_in_proportion_and_knows_its_mass():
    chain = model()
    everything = all_log_probs(chain)
    generator = torch.Generator().manual_seed(1)
    copies = SETS[:1].expand(4000, -1)
    orders, log_mass = sample_order(chain, copies, generator)
    for column, order in enumerate(ORDERS):
        rows = (orders == torch.tensor(order)).all(dim=1)
        share = float(rows.double().mean())
        # Drawn with probability q = p / mass.
        q = math.exp(float(everything[0, column]) - float(log_mass[rows][0])) if share else 0.0
        assert share == pytest.approx(q, abs=0.03)
        if share:
            assert float(log_mass[rows].std()) < 1e-12 or rows.sum() == 1


def test_greedy_order_takes_the_likeliest_element_left():
    chain = model()
    orders, _ = sample_order(chain, SETS, greedy=True)
    for i in range(2):
        left, prefix = set(range(3)), []
        for t in range(3):
            tokens = torch.tensor([[*[int(SETS[i, j]) for j in prefix], 0]])
            scores = chain(tokens)[0, t].detach()
            pick = max(left, key=lambda j: float(scores[SETS[i, j]]))
            assert int(orders[i, t]) == pick
            left.remove(pick)
            prefix.append(pick)


@pytest.mark.parametrize("samples", [1, 4])
def test_probability_of_a_set_is_the_sum_over_its_orders(samples: int):
    chain = model()
    exact = all_log_probs(chain).logsumexp(dim=1).exp()
    generator = torch.Generator().manual_seed(2)
    many = set_log_prob(chain, SETS.repeat(12_000 // samples, 1), generator, samples=samples)
    found = many.exp().reshape(-1, 2)
    spread = found.std(dim=0) / len(found) ** 0.5
    assert ((found.mean(dim=0) - exact).abs() < 4.0 * spread).all()
    assert (spread < 0.03 * exact).all()


def test_modes_of_the_loss():
    chain = model()
    everything = all_log_probs(chain)
    given = order_search_loss(chain, SETS, "given")
    assert float(given.detach()) == pytest.approx(-float(everything[:, 0].mean()))
    best = order_search_loss(chain, SETS, "max")
    assert float(best.detach()) == pytest.approx(-float(everything.max(dim=1).values.mean()))
    many = SETS.repeat(3000, 1)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        uniform = float(order_search_loss(chain, many, "uniform", generator))
        sampled = float(order_search_loss(chain, many, "sample", generator))
    assert uniform == pytest.approx(-float(everything.mean()), abs=0.1)
    assert float(best.detach()) < sampled < uniform


def test_loss_reaches_the_weights_in_every_mode():
    for mode in ("given", "uniform", "sample", "max"):
        chain = model()
        order_search_loss(chain, SETS, mode, torch.Generator().manual_seed(5)).backward()
        assert chain.out.weight.grad is not None and bool(chain.out.weight.grad.any())


def test_context_carries_a_set_in():
    """Emit the tokens of the set that was read: only a context can tell which."""
    torch.manual_seed(6)
    encoder, chain = SetEncoder(4, width=16, steps=1), ChainModel(4, width=16, context=32)
    optimizer = torch.optim.Adam([*encoder.parameters(), *chain.parameters()], lr=1e-2)
    pairs = torch.tensor(list(itertools.combinations(range(4), 2)))
    one_hot = torch.nn.functional.one_hot(pairs, 4).float()
    generator = torch.Generator().manual_seed(7)
    for count in range(150):
        mode = "uniform" if count < 40 else "sample"
        loss = order_search_loss(chain, pairs, mode, generator, context=encoder(one_hot)[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        summary = encoder(one_hot)[1]
    found = set_log_prob(chain, pairs, generator, context=summary)
    assert float(found.exp().min()) > 0.7  # without a context it could not exceed 1/6 on average


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ChainModel(1), "tokens >= 2"),
        (lambda: order_search_loss(model(), SETS, "sorted"), "'sorted'"),
        (lambda: order_search_loss(model(), SETS.double(), "given"), "integer tokens"),
        (lambda: order_search_loss(model(4), SETS, "given"), "tokens in 0..3"),
        (lambda: order_log_prob(model(), SETS, SETS[:1]), "one order per set"),
        (lambda: best_order(model(9), torch.arange(8)[None]), "at most 7"),
        (lambda: set_log_prob(model(), SETS, torch.Generator(), samples=0), "one sample"),
        (lambda: order_search_loss(model(context=3), SETS, "given"), "a context is needed"),
        (
            lambda: order_search_loss(model(), SETS, "given", context=torch.zeros(2, 3)),
            "a context is needed",
        ),
    ],
)
def test_bad_input_is_explained(call, message: str):
    with pytest.raises(OrderError, match=message):
        call()
