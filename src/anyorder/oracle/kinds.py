"""The kinds of answers and of needs: one row each, from which everything else follows.

A new kind of answer is a row of :data:`ANSWERS`, a field of ``Calls`` and one of ``Budget``.
Prices, units of budgets, columns of reports and what the contract allows are read off the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from anyorder.errors import AnyOrderError


@dataclass(frozen=True, slots=True)
class Answer:
    """A kind of answer.

    Attributes:
        name: the field of the ledger and the unit of budgets.
        one: what one is called in a text.
        many: what several are called.
        meaning: what one is counted for.
        price: in forward passes, when nothing was measured: a backward pass costs about two
            forwards, a Hessian product needs a graph kept through the backward and a second
            backward.
        evaluation: whether one is one evaluation of the closure.
        composite: whether one comes with a gradient where the closure is a ``Composite``.
        batches: whether it is counted for each of several batches.
    """

    name: str
    one: str
    many: str
    meaning: str
    price: float
    evaluation: bool = False
    composite: bool = False
    batches: bool = True


ANSWERS = (
    Answer("values", "value", "values", "one loss without a graph", 1.0, evaluation=True),
    Answer("grads", "gradient", "gradients", "one loss with its gradient", 3.0, evaluation=True),
    Answer(
        "products",
        "curvature product",
        "curvature products",
        "one curvature product, `H @ v` or a Gauss-Newton one",
        6.0,
    ),
    Answer("rankings", "ranking", "rankings", "one question to a ranker", 0.0, batches=False),
    Answer(
        "ranked",
        "ranked point",
        "ranked points",
        "one point shown in such a question",
        1.0,
        evaluation=True,
        batches=False,
    ),
    Answer(
        "output_grads",
        "output gradient",
        "output gradients",
        "one gradient of the loss in the model's outputs, when the closure is a `Composite`",
        0.0,
        composite=True,
    ),
)

#: The kinds of answers, as the ledger names them.
COUNTS = tuple(answer.name for answer in ANSWERS)
#: Price of each answer in forward passes when nothing was measured.
NOMINAL_RATES = {answer.name: answer.price for answer in ANSWERS if answer.price}


@dataclass(frozen=True, slots=True)
class Need:
    """What a method may declare in ``needs``.

    Attributes:
        name: as methods write it.
        answers: the kinds of answers it may use.
        composite: whether it calls for a ``Composite``.
        differentiates: whether the loss is differentiated.
    """

    name: str
    answers: frozenset[str]
    composite: bool = False
    differentiates: bool = True


NEEDS = (
    Need("value", frozenset({"values"}), differentiates=False),
    Need("rank", frozenset({"rankings", "ranked"}), differentiates=False),
    Need("grad", frozenset({"grads"})),
    Need("hessian", frozenset({"products"})),
    Need("ggn", frozenset({"values", "products", "output_grads"}), composite=True),
    Need("output_grad", frozenset({"output_grads", "grads", "values"}), composite=True),
)

#: Needs that call for a ``Composite``.
COMPOSITE = frozenset(need.name for need in NEEDS if need.composite)
_DIFFERENTIATES = frozenset(need.name for need in NEEDS if need.differentiates)


class UnusedOptionError(AnyOrderError, TypeError):
    """An option that the method would have to ignore."""


def refuse_unused(
    method: str, needs: frozenset[str], *, ranker: object = None, scaler: object = None
) -> None:
    """Refuse what a method with these needs would have to ignore.

    Args:
        method: its name.
        needs: what it declares.
        ranker: the ranker it was given, or ``None``.
        scaler: the gradient scaler it was given, or ``None``.

    Raises:
        UnusedOptionError: one of them would never be used.
    """
    asks = f"{method} asks for {', '.join(sorted(needs))}"
    if ranker is not None and "rank" not in needs:
        raise UnusedOptionError(f"ranker: {asks} and never for an order; leave it out")
    if scaler is not None and not needs & _DIFFERENTIATES:
        raise UnusedOptionError(
            f"scaler: {asks} and differentiates nothing that could be scaled; leave it out"
        )
