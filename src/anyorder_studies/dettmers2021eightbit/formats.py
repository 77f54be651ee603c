"""8-bit formats without one part: the paper's table or blocks, or our lower bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anyorder import AdamW, Optimizer
from anyorder.engine.formats import Blockwise, Format, Parts, State, encode, format_for


@dataclass(frozen=True, slots=True)
class Ablated(Blockwise):
    """8 bits per value with one scale per block, with another table or without the lower bound.

    Attributes:
        linear: equidistant levels, 255 in [-1, 1] or 256 in [0, 1], instead of the dynamic table.
        guarded: whether positive values of an unsigned buffer are not rounded to zero, as in
            :class:`anyorder.engine.formats.Blockwise`. The paper's format may round them to zero.
    """

    linear: bool = False
    guarded: bool = True

    def zeros(self, size: int, like: Tensor) -> Parts:
        """Zeros, as codes and scales."""
        codes, scales = Blockwise.zeros(self, size, like)
        return (codes.fill_(self._origin) if self.linear else codes), scales

    def read(self, stored: Parts) -> Tensor:
        """The values, float32, shape (blocks, block)."""
        if not self.linear:
            return Blockwise.read(self, stored)
        codes, scales = stored
        return (codes.float() - self._origin) / self._levels * scales

    def write_(self, stored: Parts, values: Tensor, noise: Tensor | None) -> None:
        """Store the nearest values of the table."""
        codes, scales = stored
        most = values.abs().amax(1, keepdim=True)
        shares = values / torch.where(most == 0, 1.0, most)
        if self.linear:
            nearest = (shares * self._levels).round().to(torch.int32) + self._origin
        else:
            nearest = encode(shares, self.signed)
        if self.guarded and not self.signed:
            nearest = torch.maximum(nearest, (values > 0).to(torch.int32))
        codes.copy_(nearest.to(torch.uint8))
        scales.copy_(most)

    @property
    def _levels(self) -> int:
        return 127 if self.signed else 255

    @property
    def _origin(self) -> int:
        return 127 if self.signed else 0


class AblatedAdamW(AdamW):
    """AdamW with 8-bit state without one part of the format. Created by :func:`adamw`."""

    linear = False
    guarded = True
    whole = False

    def _format(self, group: Mapping[str, Any], state: State, name: str, size: int) -> Format:
        signed = name not in self.nonnegative
        form = format_for(state, size, nonnegative=not signed, block=group["state_block"])
        if not isinstance(form, Blockwise):
            return form
        block = size if self.whole else form.block
        return Ablated(signed, block, linear=self.linear, guarded=self.guarded)


# Differences from float32: options of AdamW, and omitted parts of the 8-bit format.
CONTESTANTS: Mapping[str, Mapping[str, Any]] = {
    "float32": {},
    "bf16": {"state": "bf16"},
    "dynamic_256": {"state": "8bit", "state_block": 256},
    "dynamic_2048": {"state": "8bit", "state_block": 2048},
    "dynamic_tensor": {"state": "8bit", "whole": True},
    "linear_2048": {"state": "8bit", "state_block": 2048, "linear": True},
    "linear_tensor": {"state": "8bit", "whole": True, "linear": True},
    "dynamic_2048_unguarded": {"state": "8bit", "state_block": 2048, "guarded": False},
    "dynamic_tensor_unguarded": {"state": "8bit", "whole": True, "guarded": False},
    "linear_tensor_unguarded": {"state": "8bit", "whole": True, "linear": True, "guarded": False},
}
_LEFT_OUT = ("linear", "guarded", "whole")


def adamw(contestant: str, model: nn.Module, lr: float) -> Optimizer:
    """AdamW with the state of a contestant of :data:`CONTESTANTS`, no decay, default betas."""
    given = CONTESTANTS[contestant]
    options = {name: value for name, value in given.items() if name not in _LEFT_OUT}
    changes = {name: value for name, value in given.items() if name in _LEFT_OUT}
    method: type[Optimizer] = AblatedAdamW if changes else AdamW
    optimizer = method(model, lr=lr, weight_decay=0.0, engine="eager", **options)
    for name, value in changes.items():
        setattr(optimizer, name, value)
    return optimizer


def rounding_error(linear: bool, block: int, values: Tensor) -> tuple[float, float]:
    """Rounding errors of positive numbers stored in 8 bits without the lower bound.

    Args:
        linear: whether to use the linear table.
        block: count of numbers that share a scale; 0 for all.
        values: float32, shape (n,), n a multiple of ``block``.

    Returns:
        The median relative error, and the fraction of numbers rounded to zero.
    """
    form = Ablated(False, block or values.numel(), linear=linear, guarded=False)
    rows = values.view(-1, form.block)
    stored = form.zeros(values.numel(), values)
    form.write_(stored, rows, None)
    kept = form.read(stored)
    error = ((kept - rows).abs() / rows).median()
    return float(error), float((kept == 0).float().mean())
