"""Reuses what blocks of a model computed, where no parameter before them has changed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError

Run = Callable[..., Any]


def blocks_of(module: nn.Module | None, given: Sequence[nn.Module] | None) -> list[nn.Module]:
    """Return the blocks: those given, or the children of an ``nn.Sequential``, or none.

    Raises:
        HyperError: the given blocks are no modules, or one contains another.
    """
    if given is None:
        parallel = isinstance(module, nn.parallel.DistributedDataParallel)
        inner: Any = module.module if parallel else module
        plain = getattr(type(inner), "forward", None) is nn.Sequential.forward
        found = list(inner.children()) if plain else []
    else:
        found = list(given)
    for block in found:
        if not isinstance(block, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise HyperError(f"blocks: expected modules, got {type(block).__name__}")
        inside = {id(part) for part in block.modules()}
        if sum(id(other) in inside for other in found) > 1:
            raise HyperError("blocks: expected modules that do not contain each other")
    opaque = any(isinstance(part, torch.jit.ScriptModule) for b in found for part in b.modules())
    return [] if opaque else found


class Features:
    """The outputs of blocks in one evaluation, for other evaluations on the same batch.

    An output is reused for a block that was complete before the first block with a changed
    parameter began. This is right for every order in which blocks are connected, as long as each
    runs once per evaluation.

    Args:
        blocks: modules of which none contains another.

    Attributes:
        order: the blocks in the order in which they ran, by their index.
        devices: the CUDA devices of their parameters.
        why_not: why outputs cannot be reused; empty if they can, or before :meth:`recording`.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self.blocks = list(blocks)
        self.why_not = "" if blocks else "no blocks are known"
        self.order: list[int] = []
        self.devices: list[int] = []
        self._outputs: dict[int, Tensor] = {}
        self._random: dict[int, list[Tensor]] = {}
        self._began: dict[int, float] = {}
        self._least: dict[int, float] = {}
        self._copies = self._draws = False

    def owner(self, param: Tensor) -> int:
        """Return the position of the first block that holds a parameter; 0 if none does."""
        for position, index in enumerate(self.order):
            if any(param is each for each in self.blocks[index].parameters()):
                return position
        return 0

    def cost(self, position: int) -> float:
        """Return the seconds from the start of a block to the end, in the fastest recording."""
        if self.why_not or not self.order:
            return 1.0
        return self._least[self.order[position]]

    @contextmanager
    def recording(self) -> Generator[None]:
        """Record the outputs of all blocks in the one evaluation inside."""
        if not self.blocks:
            yield
            return
        self.order, self._outputs, self.why_not = [], {}, ""
        self._random = {0: []}
        params = (param for block in self.blocks for param in block.parameters())
        self.devices = sorted({param.device.index or 0 for param in params if param.is_cuda})
        versions: dict[int, tuple[Tensor, int]] = {}
        with self._replaced(lambda i, run: self._recorded(i, run, versions)):
            yield
        ended = time.perf_counter()
        for index, began in self._began.items():
            self._least[index] = min(self._least.get(index, math.inf), max(ended - began, 1e-9))
        if not self.why_not and len(self.order) < len(self.blocks):
            self.why_not = "a block did not run"
        self._copies = any(out._version != version for out, version in versions.values())
        first, *later = (self._random[index] for index in self.order or [0])
        self._draws = not all(all(map(torch.equal, first, state)) for state in later)

    def _recorded(self, index: int, run: Run, versions: dict[int, tuple[Tensor, int]]) -> Run:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if index in self.order:
                self.why_not = "a block runs more than once per evaluation"
            self.order.append(index)
            self._random[index] = _random_states(self.devices)
            self._began[index] = time.perf_counter()
            out = run(*args, **kwargs)
            if self.order[-1] != index:
                self.why_not = "a block runs inside another one"
            if not isinstance(out, Tensor) or out.is_inference():
                self.why_not = "a block does not return one ordinary tensor"
            else:
                self._outputs[index] = out.detach().clone()
                versions[index] = out, out._version
            return out

        return forward

    @contextmanager
    def reusing(self, position: int) -> Generator[None]:
        """Compute only from the block at this position on, in the evaluation inside."""
        if self.why_not or not position:
            yield
            return
        done = set(self.order[:position])
        first = self.order[position]

        def choose(index: int, run: Run) -> Run:
            if index in done:
                return self._returned(index)
            return self._continued(index, run) if index == first and self._draws else run

        with self._replaced(choose):
            yield

    def _returned(self, index: int) -> Run:
        out = self._outputs[index]
        copies = self._copies  # something wrote into an output
        return lambda *_args, **_kwargs: out.clone() if copies else out

    def _continued(self, index: int, run: Run) -> Run:
        def forward(*args: Any, **kwargs: Any) -> Any:
            cpu, *others = self._random[index]  # as if earlier blocks had drawn theirs
            torch.set_rng_state(cpu)
            for device, state in zip(self.devices, others, strict=True):
                torch.cuda.set_rng_state(state, device)
            return run(*args, **kwargs)

        return forward

    @contextmanager
    def _replaced(self, made: Callable[[int, Run], Run]) -> Generator[None]:
        """Give every block another ``forward`` inside."""
        own = [block.__dict__.get("forward") for block in self.blocks]
        try:
            for index, block in enumerate(self.blocks):
                block.__dict__["forward"] = made(index, block.forward)
            yield
        finally:
            for block, kept in zip(self.blocks, own, strict=True):
                block.__dict__.pop("forward", None)
                if kept is not None:
                    block.__dict__["forward"] = kept


def _random_states(devices: Sequence[int]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
