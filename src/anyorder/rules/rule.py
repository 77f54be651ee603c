"""A rule: the update of parameters from an estimate of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from anyorder.engine.program import Arithmetic

#: Maps a parameter group and the step number of a parameter (from 1) to the scalars of a rule.
Scalars = Callable[[Mapping[str, Any], int], Mapping[str, float]]


def _none(group: Mapping[str, Any], step: int) -> dict[str, float]:
    return {}


@dataclass(frozen=True, eq=False)
class Rule:
    """The arithmetic of a method with its buffers, scalars and hyperparameters.

    A rule is independent of the source of its input: a gradient from backpropagation, an estimate
    from values or rankings, an average over processes. What is applied around it (weight decay,
    clipping, masks, the precision of state) follows from these attributes.

    Attributes:
        function: ``function(param, *buffers, *inputs, **scalars)``, in place and element by
            element; see :mod:`anyorder.engine.program`.
        buffers: names of the buffers of each parameter, of the parameter's shape and initially
            zero, in the order of the arguments of ``function``.
        scalars: returns the scalars of a step from group and step.
        hypers: hyperparameters that it reads from a group, declared with
            :func:`anyorder.hyper.hyper`.
        nonnegative: buffers that are never negative, such as second moments.
        gradient: whether the first input estimates a gradient. Then weight decay, clipping and
            cautious masks are applied around the rule.
        own_decay: whether the rule applies weight decay itself.
        ends_step: whether applying it ends the step of a parameter. If not, as for a rule that only
            updates buffers, nothing is applied around it.
    """

    function: Arithmetic
    buffers: tuple[str, ...] = ()
    scalars: Scalars = _none
    hypers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    nonnegative: frozenset[str] = frozenset()
    gradient: bool = True
    own_decay: bool = False
    ends_step: bool = True
