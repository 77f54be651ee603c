"""Copies and pickles of optimizers: user data is copied, derived data is rebuilt."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any, Self

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.optimizer.state import StateLayout


class PickleError(AnyOrderError, TypeError):
    """An optimizer contains something that cannot be pickled."""


class Copying:
    """Mixin for copies and pickles that step independently.

    Hooks, and a ``step`` that was wrapped by a scheduler, are not copied, as with torch.optim.
    Copies within a process share the process group; it cannot be pickled.
    """

    process_group: Any
    state: Any

    def __getstate__(self) -> dict[str, Any]:
        """Return all user data and statistics; state as independent tensors."""
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
        """Load the result of :meth:`__getstate__`; buffers are arranged at the next use."""
        defaults = dict(state["defaults"])
        super().__setstate__(state)  # type: ignore[misc]  # torch.optim: hooks and step
        self.__dict__["defaults"] = defaults  # without the keys that torch.optim adds
        self._layout = StateLayout()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy with its own parameters, like torch.optim."""
        if self.process_group is not None:
            memo[id(self.process_group)] = self.process_group
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to pickle process groups."""
        if isinstance(self.process_group, torch.distributed.ProcessGroup):
            raise PickleError(
                "process_group: cannot be pickled; set optimizer.process_group = None before, and "
                "set the group of the new process on the copy"
            )
        return super().__reduce_ex__(protocol)
