"""The point to evaluate, for methods that train at another one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.model.sharding import local
from anyorder.rules import Rule
from anyorder.rules.descent import SHIFT
from anyorder.rules.rule import Scalars


class AnswerError(AnyOrderError, RuntimeError):
    """A step was called while the parameters hold the answer."""


class Owner(Protocol):
    """The part of an optimizer that this module uses."""

    param_groups: list[dict[str, Any]]
    after: Callable[[str, Tensor], Any] | None

    def named_params(self) -> dict[str, Tensor]:
        """Return the parameters that rules are applied to, by name."""
        ...

    def buffer(self, name: str) -> dict[str, Tensor]:
        """Return one buffer by parameter name."""
        ...

    def answer_scale(self, group: Mapping[str, Any]) -> float:
        """Return the distance to the answer, in multiples of the buffer."""
        ...

    def apply(
        self, rule: Rule, *inputs: Sequence[Tensor | None], scalars: Scalars | None = None
    ) -> None:
        """Apply a rule."""
        ...


@dataclass(slots=True)
class Answer:
    """Moves the parameters to the answer and back.

    Attributes:
        buffer: the direction to the answer; ``None`` if the answer is the parameters themselves.
        shown: whether the parameters hold the answer.
        whole: whether rules apply to frozen parameters too, which is so during these moves.
    """

    buffer: str | None = None
    shown: bool = False
    whole: bool = False
    _aside: list[tuple[Tensor, Tensor]] = field(default_factory=list[tuple[Tensor, Tensor]])
    #: How far the way there was, by group: the way back is as far, whatever a scheduler does.
    _scales: dict[int, float] = field(default_factory=dict[int, float])

    def show(self, owner: Owner) -> None:
        """Move the parameters to the answer."""
        if self.shown or self.buffer is None:
            return
        here = [p for group in owner.param_groups for p in group["params"]]
        copies = [local(p).detach().clone() for p in here]
        self._scales = {id(group): owner.answer_scale(group) for group in owner.param_groups}
        try:
            self._go(owner)
        except BaseException:
            _put_back(zip(here, copies, strict=True))
            raise
        self._aside = list(zip(here, copies, strict=True))
        self.shown = True

    def _go(self, owner: Owner) -> None:
        """Move to the answer, as constrained as what it is an average of."""
        self._move(owner, 1.0)
        if owner.after is not None:
            with torch.no_grad():
                for name, param in owner.named_params().items():
                    owner.after(name, param)

    def hide(self, owner: Owner, *, exact: bool) -> None:
        """Move the parameters back.

        Args:
            owner: the optimizer.
            exact: restore the saved values, even if parameters were changed since. Otherwise
                changed parameters are treated as answers and moved by the same distance.
        """
        if not self.shown:
            return
        same = self._aside if exact else self._unchanged(owner)
        self.shown, self._aside = False, []
        if not exact:
            self._move(owner, -1.0, without={id(p) for p, _ in same})
        _put_back(same)
        self._scales = {}

    def _unchanged(self, owner: Owner) -> list[tuple[Tensor, Tensor]]:
        """Those that still hold the answer, found by moving there again from what was put aside.

        ``param.data`` can be written without a trace in the parameter's version.
        """
        if not self._aside:
            return []
        here = {id(p): p for group in owner.param_groups for p in group["params"]}
        here |= {id(p): p for p, _ in self._aside}
        now = {key: (p, local(p).detach().clone()) for key, p in here.items()}
        _put_back(self._aside)
        try:
            self._go(owner)
            return [(p, c) for p, c in self._aside if torch.equal(local(p), now[id(p)][1])]
        finally:
            _put_back(now.values())

    def restore(self, shown: bool) -> None:
        """Load from a checkpoint whether the weights saved with it are the answer."""
        if self.shown != (shown and self.buffer is not None):
            self.shown, self._aside, self._scales = not self.shown, [], {}

    @torch.no_grad()
    def _move(self, owner: Owner, sign: float, without: Collection[int] = ()) -> None:
        """Move every parameter that has state, including frozen ones."""
        assert self.buffer is not None
        self.whole = True
        try:
            values = owner.buffer(self.buffer)
            moves = [
                None if id(param) in without else values.get(name)
                for name, param in owner.named_params().items()
            ]
            owner.apply(
                SHIFT, moves, scalars=lambda group, _: {"lr": -sign * self._scale(owner, group)}
            )
        finally:
            self.whole = False

    def _scale(self, owner: Owner, group: Mapping[str, Any]) -> float:
        known = self._scales.get(id(group))
        return owner.answer_scale(group) if known is None else known

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies have other parameters and move them back instead of restoring."""
        return Answer, (self.buffer, self.shown)


@torch.no_grad()
def _put_back(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    for param, copy in pairs:
        local(param).copy_(copy)
