"""The kinds of answers and needs, as tables.

To add a kind of answer, add a row to :data:`ANSWERS`, a field to ``Calls`` and one to ``Budget``.
Costs, units of budgets, columns of reports and the checks of the contract suite are derived from
these rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from anyorder.errors import AnyOrderError


@dataclass(frozen=True, slots=True)
class Answer:
    """A kind of answer.

    Attributes:
        name: the field of the ledger and the unit of budgets.
        one: its name in texts, singular.
        many: its name in texts, plural.
        meaning: description of what is counted.
        price: nominal cost in forward passes: a backward pass costs about two forwards, the
            tangents of forward mode one, a Hessian-vector product keeps the graph through the
            backward and needs a second backward.
        evaluation: whether it is one evaluation of the closure.
        composite: whether a gradient of a ``Composite`` counts one of these too.
        batches: whether it is counted per batch.
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
    Answer(
        "jvps",
        "directional derivative",
        "directional derivatives",
        "one loss with its exact derivative along a direction, by forward mode",
        2.0,
        evaluation=True,
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
#: Nominal cost of each kind of answer in forward passes.
NOMINAL_RATES = {answer.name: answer.price for answer in ANSWERS if answer.price}


@dataclass(frozen=True, slots=True)
class Need:
    """A kind of information that a method may declare in ``needs``.

    Attributes:
        name: its name in ``needs``.
        answers: the kinds of answers that the method may then use.
        composite: whether it requires a ``Composite``.
        differentiates: whether the loss is differentiated.
    """

    name: str
    answers: frozenset[str]
    composite: bool = False
    differentiates: bool = True


NEEDS = (
    Need("value", frozenset({"values"}), differentiates=False),
    Need("rank", frozenset({"rankings", "ranked"}), differentiates=False),
    Need("jvp", frozenset({"jvps"}), differentiates=False),
    Need("grad", frozenset({"grads"})),
    Need("hessian", frozenset({"products"})),
    Need("ggn", frozenset({"values", "products", "output_grads"}), composite=True),
    Need("output_grad", frozenset({"output_grads", "grads", "values"}), composite=True),
)

#: Needs that require a ``Composite``.
COMPOSITE = frozenset(need.name for need in NEEDS if need.composite)
_DIFFERENTIATES = frozenset(need.name for need in NEEDS if need.differentiates)


class UnusedOptionError(AnyOrderError, TypeError):
    """An option that the method cannot use."""


def refuse_unused(
    method: str, needs: frozenset[str], *, ranker: object = None, scaler: object = None
) -> None:
    """Refuse options that a method with these needs cannot use.

    Args:
        method: its name.
        needs: its needs.
        ranker: the ranker, or ``None``.
        scaler: the gradient scaler, or ``None``.

    Raises:
        UnusedOptionError: one of them would never be used.
    """
    asks = f"{method} needs {', '.join(sorted(needs))}"
    if ranker is not None and "rank" not in needs:
        raise UnusedOptionError(f"ranker: {asks} and does not use rankings; leave it out")
    if scaler is not None and not needs & _DIFFERENTIATES:
        raise UnusedOptionError(f"scaler: {asks} and does not differentiate the loss; leave it out")
