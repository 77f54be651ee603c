"""Base class of methods with one rule for matrices and AdamW for all other parameters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from anyorder.hyper import HyperError, hyper
from anyorder.model.params import module_parameters, named_groups
from anyorder.model.roles import (
    Assignment,
    Role,
    RoleError,
    RoleTypeError,
    RoleWarning,
    find_roles,
    names_head,
    roles_by_shape,
    unsure,
    with_patterns,
)
from anyorder.optimizer import Optimizer
from anyorder.optimizer.options import plain
from anyorder.rules.adamw import ADAMW as RULE
from anyorder.rules.adamw import adamw_scalars

Roles = Mapping[str, str] | nn.Module | Literal["shape"] | None
#: The label of all parameters without a matrix update.
ADAMW = "adamw"
#: AdamW's rule, whose hyperparameters have other names here.
ADAMW_RULE = replace(RULE, hypers={}, scalars=adamw_scalars("adamw_betas", "adamw_eps"))


class ByRole(Optimizer):
    """A method whose rule for a parameter depends on the parameter's role in the model.

    A group has one ``lr``, the learning rate of the method's own rule. AdamW's learning rate keeps
    its ratio to it: the initial ratio of ``adamw_lr`` to ``lr``, or else a fixed one. A schedule of
    ``lr`` therefore scales both.

    Args:
        params: preferably a module, or any other form that methods accept.
        roles: roles by name pattern, such as ``{"out.*": "head"}``, which override those of the
            module; or the module itself, if ``params`` are groups of its parameters; or
            ``"shape"``, to assign roles by shape if there is no module.
        options: settings of the method and common settings of all methods.

    Raises:
        RoleError: a module has no parameter for the method's own rule, and ``roles`` is ``None``.
    """

    #: The label of the rule for each role.
    rule_by_role: ClassVar[Mapping[Role, str]] = {}

    lr: float = hyper(1e-3, ge=0, unit="parameter", doc="step size")
    adamw_lr: float | None = hyper(
        None, ge=0, unit="parameter", doc="AdamW's step size; None: a fixed share of lr"
    )
    adamw_betas: tuple[float, float] = hyper(
        (0.9, 0.999), ge=0, lt=1, doc="AdamW's decay rates of the mean and mean square"
    )
    adamw_eps: float = hyper(1e-8, ge=0, unit="gradient", doc="added to AdamW's denominator")

    def __init__(self, params: Any, *, roles: Roles = None, **options: Any) -> None:
        given = params if isinstance(params, nn.Module) else named_groups(params)
        if roles not in (None, "shape") and not isinstance(roles, (Mapping, nn.Module)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RoleTypeError(
                f"roles: expected {{'NAME': 'role'}}, a module or 'shape', got {roles!r}"
            )
        self._told = None if isinstance(roles, nn.Module) else roles
        self._source = roles if isinstance(roles, nn.Module) else None
        self._source = given if isinstance(given, nn.Module) else self._source
        self._assigned: dict[str, Assignment] = {}
        named = {n: p for group in named_groups(given) for n, p in group["params"]}
        self._assigned = self._found(named, self._told if isinstance(self._told, Mapping) else {})
        super().__init__(given, **options)
        labels = [label for group in self.param_groups for label in self.labels(group)]
        if set(labels) <= {ADAMW} and self._told is None:
            self._without_matrices()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, after assigning roles to its parameters."""
        if not isinstance(param_group, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            super().add_param_group(param_group)  # raises the error
        (group,) = named_groups([param_group], taken=getattr(self, "param_groups", []))
        late = {n: p for n, p in group["params"] if n not in self._assigned}
        before = self._assigned
        self._assigned = {**before, **(self._found(late, {}) if late else {})}
        try:
            super().add_param_group({**param_group, "params": group["params"]})
        except Exception:
            self._assigned = before
            raise
        made = self.param_groups[-1]
        made.setdefault("lr_given", plain(made["lr"]))  # schedulers write into tensors

    def check_group(self, group: dict[str, Any]) -> None:
        """Matrix updates are normalised, so decay added to the gradient would have no effect."""
        if not group["decoupled_weight_decay"]:
            raise HyperError(
                "decoupled_weight_decay: expected True; decay added to the gradient has no effect, "
                f"since {type(self).__name__} normalises it. Leave the option out"
            )

    def adamw_share(self, group: Mapping[str, Any]) -> float:
        """Ratio of AdamW's learning rate to ``lr`` if ``adamw_lr`` is ``None``."""
        return 1.0

    def assignment(self, name: str) -> Assignment:
        """The role of a parameter, and how it was determined."""
        return self._assigned[name]

    def label(self, name: str, group: Mapping[str, Any]) -> str:
        """The rule for a parameter's role."""
        if name not in self._assigned:  # added to the group's list directly
            named = dict(zip(group["param_names"], group["params"], strict=True))
            late = {n: p for n, p in named.items() if n not in self._assigned}
            self._assigned = {**self._assigned, **self._found(late, {})}
        return self.rule_by_role[self._assigned[name].role]

    def labels(self, group: dict[str, Any]) -> list[str]:
        """The label of each parameter; the role is updated if a parameter became a vector."""
        for name, param in zip(group["param_names"], group["params"], strict=True):
            assigned = self._assigned.get(name)
            if assigned is not None and assigned.role != "vector" and param.ndim < 2:
                self._assigned = {**self._assigned, **roles_by_shape({name: param})}
        return super().labels(group)

    def note(self, name: str, param: Tensor) -> str:
        """Role, rule, and how the role was determined."""
        assigned = self._assigned[name]
        (group,) = [g for g in self.param_groups if name in g["param_names"]]
        return f"{assigned.role}: {self.label(name, group)} ({assigned.why})"

    def apply_adamw(self, grads: Sequence[Tensor | None]) -> None:
        """Apply AdamW to all parameters that the method's own rule does not update."""
        self.apply(ADAMW_RULE, grads, label=ADAMW, lr=self.adamw_step_size)

    def adamw_step_size(self, group: Mapping[str, Any]) -> float:
        """AdamW's step size for the ``lr`` of a group."""
        own, lr = group["adamw_lr"], float(group["lr"])
        if own is None:
            return self.adamw_share(group) * lr
        given = float(group.get("lr_given", lr))  # schedulers change only lr
        return float(own) * (lr / given if given else 1.0)

    def told_enough(self) -> bool:
        """Whether ``roles`` suffice without a module."""
        return self._told is not None

    def without_module(self, named: Mapping[str, Tensor]) -> None:
        """Warn that the roles of these tensors with two or more axes are unknown."""
        warnings.warn(
            f"{type(self).__name__} cannot tell hidden matrices from embeddings and output layers "
            f"by their shape ({', '.join(list(named)[:5])}); write {type(self).__name__}(model), "
            "or pass roles=model, or roles={'NAME': 'embedding', ...}, or roles='shape' if all of "
            "them are hidden matrices",
            RoleWarning,
            stacklevel=4,
        )

    def _without_matrices(self) -> None:
        """Raise or warn: no parameter uses the method's own rule."""
        words = (
            f"{type(self).__name__} has no matrix for its own rule: all parameters would use "
            "AdamW. Use AdamW, or specify the matrices: roles={'NAME': 'matrix', ...}"
        )
        if self._source is not None:
            raise RoleError(words + "; roles={} if this is intended")
        warnings.warn(words, RoleWarning, stacklevel=3)

    def _found(
        self, named: dict[str, Tensor], patterns: Mapping[str, str]
    ) -> dict[str, Assignment]:
        """Assign roles from the module, the user's patterns and the shape."""
        found = roles_by_shape(named)
        known: dict[int, Assignment] = {}
        if self._source is not None:
            assigned = find_roles(self._source, guess=not names_head(patterns))
            known = {id(p): assigned[n] for n, p in module_parameters(self._source)}
        found.update({n: known[id(p)] for n, p in named.items() if id(p) in known})
        found = with_patterns(found, named, patterns)
        open_ = {n: p for n, p in named.items() if found[n].role == "matrix" and id(p) not in known}
        if open_ and not self.told_enough():
            self.without_module(open_)
        for remark in unsure(found):
            warnings.warn(remark, RoleWarning, stacklevel=4)
        return found
