r"""Sets as outputs: a chain model over tokens, and the search for an output order.

A set has many orders, and the chain rule applies to each, but some are easier to learn. The search
maximises :math:`\sum_i \max_\pi \log p(Y_{i,\pi}\mid X_i)`: first with uniformly random orders,
then with an order *sampled* according to its probability, element by element among those not yet
emitted. Sampling explores; the maximum would keep its first choice.

The probability of a set in any order is :math:`p(Y) = \sum_\pi p(Y_\pi)`. With orders
from that sampler, whose probability is :math:`q(\pi) = \prod_t p_t / Z_t` with :math:`Z_t` the
mass on the remaining elements, it is estimated without bias by the mean of
:math:`p(Y_\pi)/q(\pi) = \prod_t Z_t`.

The loss and the sampler are checked against a public re-implementation that quotes equation 9 and
section 5.2 of the paper; the estimate of the set's probability is our own addition, because the
probability of a single order is not comparable between a model of one order and a model of many.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from anyorder_studies.vinyals2015ordermatters.inputs import OrderError

Mode = Literal["given", "uniform", "sample", "max"]
LARGEST_EXACT = 7


class ChainModel(nn.Module):
    """An LSTM that predicts the next token from the previous ones and an optional context.

    Args:
        tokens: Size of the vocabulary.
        width: Width of embedding and LSTM.
        context: Dimension of the context, e.g. of a set encoder's summary; 0 for none.
    """

    def __init__(self, tokens: int, *, width: int = 64, context: int = 0) -> None:
        super().__init__()
        if tokens < 2 or width < 1 or context < 0:
            raise OrderError(
                f"expected tokens >= 2, width >= 1, context >= 0, got {tokens, width, context}"
            )
        self.tokens, self.width = tokens, width
        self.embedding = nn.Embedding(tokens + 1, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.out = nn.Linear(width, tokens)
        self.start = nn.Linear(context, 2 * width) if context else None

    def initial(self, n: int, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """State of the LSTM before the first token, computed from the context (n, c)."""
        if (context is None) != (self.start is None):
            raise OrderError("a context is needed if and only if the model was made with one")
        if self.start is None or context is None:
            zero = self.out.weight.new_zeros(1, n, self.width)
            return zero, zero
        hidden, cell = self.start(context)[None].chunk(2, dim=2)
        return hidden.contiguous(), cell.contiguous()

    def forward(self, sequences: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-probabilities of every next token: (n, m, tokens) for sequences (n, m)."""
        first = torch.full_like(sequences[:, :1], self.tokens)
        given = self.embedding(torch.cat([first, sequences[:, :-1]], dim=1))
        hidden, _ = self.lstm(given, self.initial(len(sequences), context))
        return self.out(hidden).log_softmax(dim=-1)


def order_log_prob(
    model: ChainModel, sets: Tensor, orders: Tensor, context: Tensor | None = None
) -> Tensor:
    """Log-probability of emitting sets in specific orders, over the whole vocabulary.

    Args:
        model: The chain model.
        sets: Tokens (n, m), in any order.
        orders: Permutations (n, m): position ``t`` emits ``sets[i, orders[i, t]]``.
        context: (n, c) if the model has a context.

    Returns:
        (n,).
    """
    _check_sets(model, sets)
    if orders.shape != sets.shape:
        raise OrderError(
            f"expected one order per set, got {tuple(orders.shape)} for {tuple(sets.shape)}"
        )
    sequences = sets.gather(1, orders)
    steps = model(sequences, context).gather(2, sequences[..., None])
    return steps[..., 0].sum(dim=1)


@torch.no_grad()
def sample_order(
    model: ChainModel,
    sets: Tensor,
    generator: torch.Generator | None = None,
    *,
    context: Tensor | None = None,
    greedy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sample an order element by element, each according to its probability under the model.

    Args:
        model: The chain model.
        sets: Tokens (n, m).
        generator: Source of randomness; not used if ``greedy``.
        context: (n, c) if the model has a context.
        greedy: Take the most likely remaining element instead.

    Returns:
        Orders (n, m), and the logarithm of the product of the masses ``Z_t`` on the remaining
        elements, (n,): the log-probability of the order minus that of sampling it.
    """
    _check_sets(model, sets)
    n, m = sets.shape
    rows = torch.arange(n)
    remaining = torch.ones(n, m, dtype=torch.bool)
    token = torch.full((n, 1), model.tokens)
    state = model.initial(n, context)
    order: list[Tensor] = []
    log_mass = model.out.weight.new_zeros(n)
    for _ in range(m):
        hidden, state = model.lstm(model.embedding(token), state)
        scores = model.out(hidden[:, 0]).log_softmax(dim=1).gather(1, sets)
        scores = scores.masked_fill(~remaining, float("-inf"))
        log_mass = log_mass + scores.logsumexp(dim=1)
        if greedy:
            index = scores.argmax(dim=1)
        else:
            index = torch.multinomial(scores.softmax(dim=1), 1, generator=generator)[:, 0]
        order.append(index)
        remaining[rows, index] = False
        token = sets[rows, index][:, None]
    return torch.stack(order, dim=1), log_mass


@torch.no_grad()
def best_order(
    model: ChainModel, sets: Tensor, context: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The most likely order by exhaustive search, and its log-probability.

    Raises:
        OrderError: If sets have more than seven elements.
    """
    _check_sets(model, sets)
    n, m = sets.shape
    if m > LARGEST_EXACT:
        raise OrderError(
            f"expected at most {LARGEST_EXACT} elements to try all orders, got {m}; use "
            "sample_order"
        )
    orders = torch.tensor(list(itertools.permutations(range(m))))
    scores = torch.stack(
        [order_log_prob(model, sets, order.expand(n, -1), context) for order in orders], dim=1
    )
    best = scores.max(dim=1)
    return orders[best.indices], best.values


def set_log_prob(
    model: ChainModel,
    sets: Tensor,
    generator: torch.Generator,
    *,
    samples: int = 16,
    context: Tensor | None = None,
) -> Tensor:
    """Log-probability of sets in any order, estimated from sampled orders.

    The estimate of the probability is unbiased; its logarithm is too low on average, less so with
    more samples. Equal tokens within a set count as distinct, so divide by the number of their
    permutations if there are any.

    Args:
        model: The chain model.
        sets: Tokens (n, m).
        generator: Source of the orders.
        samples: Number of orders per set.
        context: (n, c) if the model has a context.

    Returns:
        (n,).
    """
    if samples < 1:
        raise OrderError(f"expected at least one sample, got {samples}")
    masses = [sample_order(model, sets, generator, context=context)[1] for _ in range(samples)]
    return torch.stack(masses).logsumexp(dim=0) - math.log(samples)


def order_search_loss(
    model: ChainModel,
    sets: Tensor,
    mode: Mode,
    generator: torch.Generator | None = None,
    *,
    context: Tensor | None = None,
) -> Tensor:
    """Mean negative log-probability of sets, each in one order.

    The paper trains with ``"uniform"`` first and with ``"sample"`` afterwards.

    Args:
        model: The chain model.
        sets: Tokens (n, m).
        mode: ``"given"``, the order in which the tokens are stored; ``"uniform"``, a random order;
            ``"sample"``, :func:`sample_order`; or ``"max"``, :func:`best_order`.
        generator: Source of randomness.
        context: (n, c) if the model has a context.

    Returns:
        A differentiable scalar.
    """
    if mode not in get_args(Mode):
        raise OrderError(f"expected mode {', '.join(get_args(Mode))}, got {mode!r}")
    n, m = sets.shape
    if mode == "given":
        orders = torch.arange(m).expand(n, -1)
    elif mode == "uniform":
        orders = torch.rand(n, m, generator=generator).argsort(dim=1)
    elif mode == "sample":
        orders, _ = sample_order(model, sets, generator, context=context)
    else:
        orders, _ = best_order(model, sets, context)
    return -order_log_prob(model, sets, orders, context).mean()


def _check_sets(model: ChainModel, sets: Tensor) -> None:
    if sets.dim() != 2 or 0 in sets.shape or sets.is_floating_point():
        raise OrderError(
            f"expected sets as integer tokens (n, m), got {sets.dtype} of shape {tuple(sets.shape)}"
        )
    if int(sets.min()) < 0 or int(sets.max()) >= model.tokens:
        raise OrderError(
            f"expected tokens in 0..{model.tokens - 1}, got {int(sets.min())}..{int(sets.max())}"
        )
