"""Copies and pickles of optimizers: what the user gave goes along, what is derived is made anew."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any, Self

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.optimizer.state import StateLayout


class PickleError(AnyOrderError, TypeError):
    """An optimizer holds something that cannot leave its process."""


class Copying:
    """The part of an optimizer that makes copies which step by themselves.

    Hooks, and a ``step`` that a scheduler has wrapped, belong to the original and stay there, as
    with torch.optim. A process group is shared by copies within a process; pickles refuse it.
    """

    process_group: Any
    state: Any

    def __getstate__(self) -> dict[str, Any]:
        """Everything that was given or learnt; state as tensors of their own size."""
        kind = type(self)
        found = {
            name: value
            for name, value in self.__dict__.items()
            if not name.endswith("_hooks") and not (callable(value) and hasattr(kind, name))
        }
        state: defaultdict[Any, Any] = defaultdict(dict)
        for param, entry in self.state.items():
            state[param] = {
                key: value.detach().clone() if isinstance(value, Tensor) else copy.copy(value)
                for key, value in entry.items()
            }
        return {**found, "state": state, "_layout": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`__getstate__` gave; buffers are arranged at the next use."""
        defaults = dict(state["defaults"])
        super().__setstate__(state)  # type: ignore[misc]  # torch.optim: hooks and step
        self.__dict__["defaults"] = defaults  # without what torch.optim adds for its own methods
        self._layout = StateLayout()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with parameters of its own, as torch.optim makes it."""
        if self.process_group is not None:
            memo[id(self.process_group)] = self.process_group
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to pickle what belongs to this process."""
        if isinstance(self.process_group, torch.distributed.ProcessGroup):
            raise PickleError(
                "process_group: cannot be pickled; set optimizer.process_group = None before, and "
                "give the copy the group of its own process"
            )
        return super().__reduce_ex__(protocol)
