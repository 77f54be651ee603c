"""A rule: how parameters move by an estimate of the gradient, with all that takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from anyorder.engine.program import Arithmetic

#: Maps a parameter group and the number of a parameter's step (from 1) to a rule's numbers.
Scalars = Callable[[Mapping[str, Any], int], Mapping[str, float]]


def _none(group: Mapping[str, Any], step: int) -> dict[str, float]:
    return {}


@dataclass(frozen=True, eq=False)
class Rule:
    """The arithmetic of a method with its state, its numbers and its settings.

    A rule does not know where its input comes from: a gradient by backpropagation, an estimate from
    values or from ranks, a sum over processes. What surrounds it (weight decay, clipping, masks,
    the precision of state) follows from what is declared here.

    Attributes:
        function: ``function(param, *buffers, *inputs, **scalars)``, in place and element by
            element; see :mod:`anyorder.engine.program`.
        buffers: names of the tensors it keeps for each parameter, of the parameter's shape and zero
            at first, in the order in which ``function`` takes them.
        scalars: the numbers of a step, as a function of group and step.
        hypers: the settings it reads from a group, declared with :func:`anyorder.hyper.hyper`.
        nonnegative: buffers that are never negative, such as second moments.
        gradient: whether the first input estimates a gradient. Then weight decay, clipping and
            cautious masks are done around the rule.
        own_decay: whether the rule applies weight decay itself.
        ends_step: whether applying it ends the step of a parameter. One that only takes a gradient
            into its buffers does not, and nothing is done around it.
    """

    function: Arithmetic
    buffers: tuple[str, ...] = ()
    scalars: Scalars = _none
    hypers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    nonnegative: frozenset[str] = frozenset()
    gradient: bool = True
    own_decay: bool = False
    ends_step: bool = True
