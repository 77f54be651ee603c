"""Several closures by name, each with parameters of its own: bilevel problems and their like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

from torch import Tensor

from anyorder.engine import Engine
from anyorder.oracle.closure_oracle import ClosureOracle, Learned
from anyorder.oracle.closures import Closure, Ranker
from anyorder.oracle.oracle import NeedsError, Oracle, Policies
from anyorder.oracle.user_state import UserState

Closures = Mapping[str, Closure | Sequence[Closure]]


class OwnerError(NeedsError):
    """A group of parameters that belongs to no closure of the method."""


class NamedClosures(Oracle):
    """An oracle for each of several closures: ``oracle["inner"]``.

    They share the ledger, the budget and the random numbers of a step. Each is asked about the
    parameters it owns; ``oracle["outer"].over("inner")`` asks about those of another.

    Args:
        closures: closures by name.
        owned: for each name, the parameters it owns, by name.
        ranker: see :class:`~anyorder.oracle.closure_oracle.ClosureOracle`, as all that follow.
        engine: runs the rules that make shifted points.
        advance: let the first evaluation of each closure move buffers and random state.
        learned: what earlier evaluations have shown about the closures; added to.
        policies: see :class:`~anyorder.oracle.oracle.Oracle`.
    """

    knows = "several closures by name"
    instead = "Ask one of them: oracle['name']"

    def __init__(
        self,
        closures: Closures,
        owned: Mapping[str, Mapping[str, Tensor]],
        *,
        ranker: Ranker | None = None,
        engine: Engine | None = None,
        advance: bool = False,
        learned: Learned | None = None,
        **policies: Unpack[Policies],
    ) -> None:
        everything = {name: p for params in owned.values() for name, p in params.items()}
        super().__init__(everything, **policies)
        policies["calls"] = self.calls
        user = UserState(self.params, self._module, closures if advance else ())
        self._oracles = {
            name: ClosureOracle(
                closure,
                owned[name],
                ranker=ranker,
                engine=engine,
                learned=learned,
                name=name,
                owned=owned,
                user=user,
                **policies,
            )
            for name, closure in closures.items()
        }

    def __getitem__(self, name: str) -> ClosureOracle:
        """The oracle of one closure."""
        if name not in self._oracles:
            raise NeedsError(f"expected one of {list(self._oracles)}, got {name!r}")
        return self._oracles[name]

    def grad(self) -> tuple[Tensor, list[Tensor | None]]:
        """Refused: there are several losses."""
        raise self._cannot_give("one gradient")

    def grads_by_param(self) -> dict[int, Tensor]:
        """The last gradients taken in the parameters of each closure, by identity."""
        found: dict[int, Tensor] = {}
        for oracle in self._oracles.values():
            found |= oracle.grads_by_param()
        return found


def checked_closures(closure: Any, declared: Sequence[str], method: str) -> Any:
    """What was given to ``step``, if it has the form the method asks for.

    Args:
        closure: what was given.
        declared: the names of the method's closures; none if it takes one.
        method: the name of the method.

    Raises:
        NeedsError: one in place of several or several in place of one, a name too few or too many.
    """
    if not declared:
        if isinstance(closure, Mapping):
            raise NeedsError(
                f"expected one closure for {method}, got closures by name; write "
                "optimizer.step(lambda: criterion(model(x), y))"
            )
        return closure
    how = "optimizer.step({" + ", ".join(f"{name!r}: {name}" for name in declared) + "})"
    if not isinstance(closure, Mapping):
        found = "none" if closure is None else type(closure).__name__
        raise NeedsError(f"expected closures by name for {method}, got {found}; write {how}")
    names = set(cast("Mapping[str, Any]", closure))
    if names != set(declared):
        missing, extra = sorted(set(declared) - names), sorted(map(str, names - set(declared)))
        raise NeedsError(
            f"expected the closures {', '.join(declared)} for {method}; "
            + "; ".join(
                f"{word} {', '.join(some)}"
                for word, some in (("missing", missing), ("unknown", extra))
                if some
            )
            + f". Write {how}"
        )
    return {name: closure[name] for name in declared}


def owners(
    groups: Sequence[Mapping[str, Any]], declared: Sequence[str]
) -> dict[str, dict[str, Tensor]]:
    """The trainable parameters that each closure owns, in order of the groups.

    Args:
        groups: parameter groups with ``params``, ``param_names`` and ``closure``.
        declared: the names of the method's closures.

    Raises:
        OwnerError: a group that names none of them.
    """
    owned: dict[str, dict[str, Tensor]] = {name: {} for name in declared}
    for index, group in enumerate(groups):
        name = checked_owner(group, index, declared)
        pairs = zip(group["param_names"], group["params"], strict=True)
        owned[name] |= {key: param for key, param in pairs if param.requires_grad}
    return owned


def checked_owner(group: Mapping[str, Any], index: int, declared: Sequence[str]) -> str:
    """The closure that parameter group number ``index`` belongs to, or :class:`OwnerError`."""
    name: Any = group.get("closure")
    if name not in declared:
        raise OwnerError(
            f"closure: expected one of {list(declared)} in parameter group {index}, got "
            f"{name!r}; write {{'params': ..., 'closure': {declared[-1]!r}}}"
        )
    return name
