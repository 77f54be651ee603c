"""Base class of methods that estimate the gradient from values along random directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from anyorder.estimators.differences import Differences, descend
from anyorder.optimizer import Optimizer
from anyorder.optimizer.options import same_in_all_groups
from anyorder.optimizer.record import CheckpointError, number
from anyorder.oracle import Oracle


class FromValues(Optimizer):
    """A method that applies its rules to an estimate from values along random directions.

    The stored weights are never perturbed, and the estimate is generated for a few parameters at a
    time, no more than the largest one has elements. Memory is therefore that of inference, the
    state of the rule, and one layer.

    Attributes:
        thresholds: for masks by magnitude, the threshold of each parameter by name.
    """

    order = 0
    estimator: ClassVar[Differences] = Differences()  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, params: Any, **options: Any) -> None:
        self.thresholds: dict[str, float] = {}
        super().__init__(params, **options)

    def check_group(self, group: dict[str, Any]) -> None:
        """Check that options of the estimate fit each other and are the same in all groups."""
        self.estimator.check(group)
        why = "all groups move along one direction"
        same_in_all_groups(self.estimator.hypers, group, self.param_groups, why)

    def note(self, name: str, param: Tensor) -> str:
        """Warn if the parameter's dtype cannot represent the perturbation."""
        if not param.numel() or "eps" not in self.hypers:
            return ""
        spacing = float(param.detach().abs().float().mean()) * torch.finfo(param.dtype).eps
        if self.param_groups[0]["eps"] >= spacing:
            return ""
        return f"eps is below the resolution of these weights (about {spacing:.1g}); raise it"

    def update(self, oracle: Oracle) -> Tensor:
        """Estimate the gradient and apply the rules."""
        loss, estimate, names = self.estimator.estimate(self, oracle)
        descend(self, estimate, names)
        return loss

    def extra_state(self) -> dict[str, Any]:
        """The thresholds of masks, if there are any."""
        return {"thresholds": dict(self.thresholds)} if self.thresholds else {}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Load the thresholds of masks."""
        given: Any = extra.get("thresholds", {})
        if not isinstance(given, Mapping):
            raise CheckpointError(f"thresholds: expected numbers by parameter name, got {given!r}")
        self.thresholds = {
            str(name): float(number(extra, value, f"the threshold of {name}", least=0.0))
            for name, value in given.items()  # pyright: ignore[reportUnknownVariableType]
        }
