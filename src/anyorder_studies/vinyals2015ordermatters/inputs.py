r"""Sets as inputs: read, process, write.

Each element is embedded separately (*read*). An LSTM without inputs then attends to all embeddings
``m_i`` several times (*process*), which does not depend on the order of the elements:

.. math::
    q_t = \mathrm{LSTM}(q^*_{t-1}),\quad
    a_{i,t} = \mathrm{softmax}_i(m_i\cdot q_t),\quad
    r_t = \sum_i a_{i,t} m_i,\quad
    q^*_t = [q_t, r_t].

A pointer network with initial state :math:`q^*_T` writes elements of the set one by one. Before
each one it may use *glimpses*, additional attention reads with separate weights.

Equations checked against the documentation of two public libraries' Set2Set layers and a public
re-implementation that quotes the paper's sections and tables; the paper's full text was not
accessible.

References:
    O. Vinyals, S. Bengio, M. Kudlur, "Order Matters: Sequence to sequence for sets", ICLR 2016,
    arXiv:1511.06391.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from anyorder.errors import AnyOrderError


class OrderError(AnyOrderError, ValueError):
    """Sets, orders or settings that do not match."""


class SetEncoder(nn.Module):
    """Read and process: a summary of a set that does not depend on the order of its elements.

    Args:
        dim: Dimension of an element.
        width: Dimension of an embedding and of the LSTM.
        steps: Process steps ``T``; with 0 the summary is zero.

    Raises:
        OrderError: If a number is out of range.
    """

    def __init__(self, dim: int, *, width: int = 64, steps: int = 5) -> None:
        super().__init__()
        if dim < 1 or width < 1 or steps < 0:
            raise OrderError(f"expected dim, width >= 1 and steps >= 0, got {dim, width, steps}")
        self.width, self.steps = width, steps
        self.read = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width))
        self.cell = nn.LSTMCell(2 * width, width)

    def forward(self, items: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode sets.

        Args:
            items: (n, m, dim), sets of up to ``m`` elements.
            mask: (n, m), true for elements (default: all true).

        Returns:
            Embeddings (n, m, width) and summaries :math:`q^*_T` (n, 2 width).
        """
        check_sets(items, mask)
        memory = self.read(items)
        summary = memory.new_zeros(len(items), 2 * self.width)
        query = state = memory.new_zeros(len(items), self.width)
        for _ in range(self.steps):
            query, state = self.cell(summary, (query, state))
            summary = torch.cat([query, attend(memory, query, mask)], dim=1)
        return memory, summary


class PointerModel(nn.Module):
    """Map a set to a sequence of its elements, e.g. in sorted order.

    Args:
        dim: Dimension of an element.
        width: Width of all layers.
        steps: Process steps of the encoder; used by ``encoder="set"``.
        glimpses: Attention reads before each pointer.
        encoder: ``"set"``, read and process; or ``"sequence"``, an LSTM over the elements in input
            order, the pointer network that the paper compares with.
        repeats: Whether an element may be selected twice. The paper allows it.
    """

    def __init__(
        self,
        dim: int,
        *,
        width: int = 64,
        steps: int = 5,
        glimpses: int = 1,
        encoder: Literal["set", "sequence"] = "set",
        repeats: bool = True,
    ) -> None:
        super().__init__()
        if encoder not in ("set", "sequence"):
            raise OrderError(f"expected encoder 'set' or 'sequence', got {encoder!r}")
        if glimpses < 0:
            raise OrderError(f"expected glimpses >= 0, got {glimpses}")
        self.glimpses, self.kind, self.repeats = glimpses, encoder, repeats
        self.encoder = SetEncoder(dim, width=width, steps=steps)
        self.reader = nn.LSTM(width, width, batch_first=True) if encoder == "sequence" else None
        self.start = nn.Linear(2 * width, 2 * width)
        self.first = nn.Parameter(torch.zeros(width))
        self.cell = nn.LSTMCell(width, width)
        self.looks = nn.ModuleList(nn.Linear(width, width) for _ in range(glimpses))
        self.keys = nn.Linear(width, width, bias=False)
        self.query = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)

    def log_prob(self, items: Tensor, order: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-probability of pointing at elements in an order.

        Args:
            items: (n, m, dim).
            order: (n, length) indices of elements, the target.
            mask: (n, m), true for elements.

        Returns:
            (n,).
        """
        if order.dim() != 2 or len(order) != len(items):
            raise OrderError(
                f"expected orders (n, length) for {len(items)} sets, got {tuple(order.shape)}"
            )
        return self._write(items, mask, order.shape[1], order)[1]

    @torch.no_grad()
    def decode(self, items: Tensor, length: int, mask: Tensor | None = None) -> Tensor:
        """Point at the most likely element ``length`` times: indices (n, length)."""
        return self._write(items, mask, length, None)[0]

    def _write(
        self, items: Tensor, mask: Tensor | None, length: int, target: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        check_sets(items, mask)
        memory, summary = self._encode(items, mask)
        hidden, state = self.start(summary).chunk(2, dim=1)
        hidden = torch.tanh(hidden)
        keys = self.keys(memory)
        rows = torch.arange(len(items))
        given = self.first.expand(len(items), -1)
        total = memory.new_zeros(len(items))
        chosen: list[Tensor] = []
        for position in range(length):
            hidden, state = self.cell(given, (hidden, state))
            log_probs = self._point(memory, keys, hidden, mask)
            index = log_probs.argmax(dim=1) if target is None else target[:, position]
            total = total + log_probs[rows, index]
            chosen.append(index)
            given = memory[rows, index]
            if not self.repeats:
                mask = (
                    torch.ones_like(log_probs, dtype=torch.bool) if mask is None else mask.clone()
                )
                mask[rows, index] = False
        return torch.stack(chosen, dim=1), total

    def _encode(self, items: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.reader is None:
            return cast(tuple[Tensor, Tensor], self.encoder(items, mask))
        if mask is not None and not bool(mask.all()):
            raise OrderError("encoder='sequence' needs sets of one size: leave the mask out")
        states, (last, cell) = self.reader(self.encoder.read(items))
        return states, torch.cat([last[0], cell[0]], dim=1)

    def _point(self, memory: Tensor, keys: Tensor, query: Tensor, mask: Tensor | None) -> Tensor:
        for look in self.looks:
            # The result of the read is added to the query, so that the pointer keeps its position.
            query = query + attend(memory, look(query), mask)
        scores = self.score(torch.tanh(keys + self.query(query)[:, None]))[..., 0]
        return _masked(scores, mask).log_softmax(dim=1)


def attend(memory: Tensor, query: Tensor, mask: Tensor | None = None) -> Tensor:
    """Content-based read: embeddings (n, m, w) weighted by softmax of dot products, (n, w)."""
    scores = _masked((memory @ query[:, :, None])[:, :, 0], mask)
    return (scores.softmax(dim=1)[:, None] @ memory)[:, 0]


def check_sets(items: Tensor, mask: Tensor | None) -> None:
    """Check that sets (n, m, dim) and masks (n, m) match.

    Raises:
        OrderError: If a shape is wrong, the mask is not boolean, or a set is empty.
    """
    if items.dim() != 3 or 0 in items.shape:
        raise OrderError(f"expected sets of shape (n, m, dim), got {tuple(items.shape)}")
    if mask is None:
        return
    if mask.shape != items.shape[:2] or mask.dtype != torch.bool:
        raise OrderError(
            f"expected a boolean mask of shape {tuple(items.shape[:2])}, got {mask.dtype} of "
            f"shape {tuple(mask.shape)}"
        )
    if not bool(mask.any(dim=1).all()):
        raise OrderError("expected at least one element in every set")


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    return scores if mask is None else scores.masked_fill(~mask, float("-inf"))
