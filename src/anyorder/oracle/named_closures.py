"""Several closures by name, each with its own parameters, for bilevel problems and similar."""

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
    """A parameter group that names no closure of the method."""


class NamedClosures(Oracle):
    """One oracle per named closure: ``oracle["inner"]``.

    They share the ledger, the budget and the random numbers of a step. Each differentiates with
    respect to the parameters of its closure; ``oracle["outer"].over("inner")`` uses those of
    another one.

    Args:
        closures: closures by name.
        owned: the parameters of each closure, by name.
        ranker: see :class:`~anyorder.oracle.closure_oracle.ClosureOracle`, also for the following.
        engine: runs the rules that compute shifted points.
        advance: let the first evaluation of each closure change buffers and random state.
        learned: facts about the closures from earlier evaluations; updated.
        policies: see :class:`~anyorder.oracle.oracle.Oracle`.
    """

    knows = "several closures by name"
    instead = "Use one of them: oracle['name']"

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
        """Return the oracle of one closure."""
        if name not in self._oracles:
            raise NeedsError(f"expected one of {list(self._oracles)}, got {name!r}")
        return self._oracles[name]

    def grad(self) -> tuple[Tensor, list[Tensor | None]]:
        """Raise an error, because there are several losses."""
        raise self._cannot_give("one gradient")

    def grads_by_param(self) -> dict[int, Tensor]:
        """Return the last gradients in the parameters of each closure, by identity."""
        found: dict[int, Tensor] = {}
        for oracle in self._oracles.values():
            found |= oracle.grads_by_param()
        return found


def checked_closures(closure: Any, declared: Sequence[str], method: str) -> Any:
    """Return the argument of ``step`` if it fits the method.

    Args:
        closure: the argument.
        declared: the names of the method's closures; empty if it takes one closure.
        method: the name of the method.

    Raises:
        NeedsError: one closure instead of several or the reverse, missing or unknown names.
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
    """Return the trainable parameters of each closure, in the order of the groups.

    Args:
        groups: parameter groups with ``params``, ``param_names`` and ``closure``.
        declared: the names of the method's closures.

    Raises:
        OwnerError: a group names none of the closures.
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
