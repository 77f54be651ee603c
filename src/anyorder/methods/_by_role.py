"""What methods share that treat matrices by one rule and everything else by AdamW."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from anyorder.hyper import HyperError, hyper
from anyorder.methods.adamw import numbers
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

Roles = Mapping[str, str] | nn.Module | Literal["shape"] | None
#: The rule of everything that is not treated as a matrix.
ADAMW = "adamw"


class ByRole(Optimizer):
    """A method whose rule for a parameter follows from the parameter's role in the model.

    Every group that is given is divided by rule, so that each has its own state and step size;
    schedulers act on all of them alike.

    Args:
        params: a module, best of all, or what any method takes.
        roles: what the module does not say: roles by name pattern, such as ``{"out.*": "head"}``;
            or the module itself, where ``params`` are groups of its parameters; or ``"shape"``, to
            let the shape decide wherever no module is given.
        options: settings of the method and those that all methods have.

    Raises:
        RoleError: a module has no parameter for the method's own rule, and ``roles`` are not given.
    """

    #: The rule for each role.
    rules: ClassVar[Mapping[Role, str]] = {}

    lr: float = hyper(1e-3, ge=0, unit="parameter", doc="step size")
    adamw_lr: float | None = hyper(
        None, ge=0, unit="parameter", doc="AdamW's step size; None: a fixed share of lr"
    )
    adamw_betas: tuple[float, float] = hyper(
        (0.9, 0.999), ge=0, lt=1, doc="AdamW's memory of mean and square"
    )
    adamw_eps: float = hyper(1e-8, ge=0, unit="gradient", doc="added to AdamW's denominator")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        signature: inspect.Signature = cls.__signature__  # type: ignore[attr-defined]
        first, *rest = signature.parameters.values()
        roles = inspect.Parameter("roles", inspect.Parameter.KEYWORD_ONLY, default=None)
        cls.__signature__ = signature.replace(parameters=[first, roles, *rest])

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
        alone = all(self.rule_of(group) == ADAMW for group in self.param_groups)
        if alone and self._told is None:
            self._without_matrices()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, divided by rule; checked before anything is changed."""
        (group,) = named_groups([param_group], taken=getattr(self, "param_groups", []))
        late = {n: p for n, p in group["params"] if n not in self._assigned}
        assigned = {**self._assigned, **(self._found(late, {}) if late else {})}
        settings = {**self.defaults, **group}
        for name in ("lr", "adamw_lr"):  # before the one is made of the other
            self.hypers[name].check(name, settings[name])
        divided: dict[str, list[tuple[str, Tensor]]] = {}
        for name, param in group["params"]:
            divided.setdefault(self.rules[assigned[name].role], []).append((name, param))
        before, self._assigned = self._assigned, assigned
        try:
            for rule, pairs in divided.items():
                own = {"lr": self.partner_lr(settings)} if rule == ADAMW else {}
                super().add_param_group({**group, **own, "params": pairs})
        except Exception:
            self._assigned = before
            raise

    def check_group(self, group: dict[str, Any]) -> None:
        """Directions of matrices have a size of their own; decay within them would be lost."""
        if not group["decoupled_weight_decay"]:
            raise HyperError(
                "decoupled_weight_decay: expected True; a decay added to the gradient would vanish "
                f"where {type(self).__name__} normalises it. Leave the option out"
            )

    def partner_lr(self, group: Mapping[str, Any]) -> float:
        """AdamW's step size in a group as it was given."""
        own = group["adamw_lr"]
        return self.adamw_share(group) * group["lr"] if own is None else own

    def adamw_share(self, group: Mapping[str, Any]) -> float:
        """AdamW's share of ``lr`` where ``adamw_lr`` is not given."""
        return 1.0

    def assignment(self, name: str) -> Assignment:
        """The role of a parameter, and how that is known."""
        return self._assigned[name]

    def rule_of(self, group: Mapping[str, Any]) -> str:
        """The rule that a group's parameters move by."""
        return self.rules[self._assigned[group["param_names"][0]].role]

    def by(self, rule: str) -> Callable[[dict[str, Any]], bool]:
        """Tells the groups that move by ``rule``."""
        return lambda group: self.rule_of(group) == rule

    def note(self, name: str, param: Tensor) -> str:
        """Role, rule, and how the role is known."""
        assigned = self._assigned[name]
        (rule,) = [self.rule_of(g) for g in self.param_groups if name in g["param_names"]]
        return f"{assigned.role}: {rule} ({assigned.why})"

    def partner_scalars(self, group: Mapping[str, Any], step: int) -> dict[str, float]:
        """The numbers of AdamW's rule."""
        return numbers(float(group["lr"]), group["adamw_betas"], group["adamw_eps"], step)

    def told_enough(self) -> bool:
        """Whether what the user says makes up for a module that is not given."""
        return self._told is not None

    def without_module(self, named: Mapping[str, Tensor]) -> None:
        """Called where nobody says what these tensors of two or more axes are for."""
        warnings.warn(
            f"{type(self).__name__} cannot tell hidden matrices from embeddings and output layers "
            f"by their shape ({', '.join(list(named)[:5])}); write {type(self).__name__}(model), "
            "or pass roles=model, or roles={'NAME': 'embedding', ...}, or roles='shape' if all of "
            "them are hidden matrices",
            RoleWarning,
            stacklevel=4,
        )

    def _without_matrices(self) -> None:
        """Nothing is for the method's own rule, and nobody said that this is meant."""
        words = (
            f"{type(self).__name__} finds no matrix for its own rule here: all parameters go to "
            "AdamW. Use AdamW, or say which ones are matrices: roles={'NAME': 'matrix', ...}"
        )
        if self._source is not None:
            raise RoleError(words + "; roles={} if it is meant so")
        warnings.warn(words, RoleWarning, stacklevel=3)

    def _found(
        self, named: dict[str, Tensor], patterns: Mapping[str, str]
    ) -> dict[str, Assignment]:
        """The assignments of parameters, from the module, the user and the shape."""
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


def average_(param: Tensor, momentum: Tensor, grad: Tensor, *, keep: Tensor, take: Tensor) -> None:
    """``m <- keep m + take g``; a rule that ends no step."""
    momentum.mul_(keep).add_(grad * take)


def descend_(param: Tensor, direction: Tensor, *, lr: Tensor) -> None:
    """``x <- x - lr direction``."""
    param.sub_(direction * lr)


def descend_with_momentum_(
    param: Tensor, momentum: Tensor, direction: Tensor, *, lr: Tensor
) -> None:
    """:func:`descend_` where there is a momentum, from which the direction was made."""
    param.sub_(direction * lr)
