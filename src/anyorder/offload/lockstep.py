"""Evaluates a closure at several points at once, so that each block is loaded once for all.

Each point has a thread that runs the whole closure, with its own shifted parameters. A thread stops
where the model calls a block. When all have stopped, the block is loaded, and the threads go
through it one after another. Only one thread runs at a time. Every evaluation sees the random
numbers, buffers and modes that it would see alone, so the values are those of one evaluation after
another, bit for bit.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NoReturn, Unpack

import torch
from torch import Tensor, nn

from anyorder.engine import Engine
from anyorder.offload.sides import (
    Side,
    State,
    Surroundings,
    innermost,
    refuse_modes,
    without,
)
from anyorder.offload.stream import Stream
from anyorder.offload.tensorfile import OffloadError
from anyorder.oracle.closures import Closure, ClosureError, Mean, batches_of, checked_loss
from anyorder.oracle.gradients import require_finite
from anyorder.oracle.oracle import Oracle, Policies
from anyorder.oracle.user_state import Random
from anyorder.points.directions import Shift
from anyorder.points.substitution import shifted


class Lockstep:
    """Calls of the blocks of a model, in evaluations that take turns and in plain ones.

    Args:
        stream: loads the blocks.
        engine: runs the rules that compute shifted points.
    """

    def __init__(self, stream: Stream, engine: Engine) -> None:
        self.stream, self._engine = stream, engine
        self._inside = {name for block in stream.blocks for name in block.params}
        self._local = threading.local()
        self._opaque: set[str] = set()  # read by operations that cannot be intercepted
        self._watched: set[int] = set()  # blocks of which one call was looked at thoroughly
        # In the present pass: parameters to be shifted, those that were, those that were not always
        self._asked: set[str] = set()
        self._seen: set[str] = set()
        self._missed: set[str] = set()
        #: Parameters outside of blocks that blocks read too.
        self._shared: dict[int, dict[str, Tensor]] = {}

    def __reduce__(self) -> NoReturn:
        """Refuse copies of the model, which would share the store."""
        raise OffloadError(
            "a model whose blocks are offloaded cannot be copied or pickled; use "
            "model.state_dict(), or optimizer.close() to get the whole model back"
        )

    def visit(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a block with its weights in memory; the ``forward`` of every block leads here."""
        side: Side | None = getattr(self._local, "side", None)
        block = self.stream.blocks[index]
        if side is None:
            if torch.is_grad_enabled() and block.trainable:
                raise OffloadError(
                    f"{block.name} is offloaded and cannot be differentiated, because its weights "
                    "leave the memory after the call; write with torch.no_grad(): model(...)"
                )
            with self.stream.used(index):
                return forward(*args, **kwargs)
        side.wait_at(index)
        mine = {name: block.params[name] for name in block.trainable}
        read = {**mine, **self._shared[index]}
        # The outer substitution would also intercept all operations that compute shifted weights.
        with without(side.mode), _pointed(mine, self._hidden(mine, side.shift)):
            first = bool(side.shift) and index not in self._watched
            self._watched |= {index} if first else set()
            call = functools.partial(forward, *args, **kwargs)
            return self._shifted(read, side.shift, call, thorough=first)

    def values(
        self,
        closure: Closure,
        shifts: Sequence[Shift],
        params: Mapping[str, Tensor],
        model: nn.Module,
        *,
        keep: bool,
        replay: Random | None = None,
    ) -> tuple[list[Tensor], Random]:
        """Return the losses at shifted points, and the random state in which they began.

        Args:
            closure: returns the loss.
            shifts: the points.
            params: the parameters that are shifted, by name.
            model: the model whose buffers and modes are restored.
            keep: see :class:`State`.
            replay: see :class:`State`.
        """
        refuse_modes()
        outside = {name: p for name, p in params.items() if name not in self._inside}
        for index, block in enumerate(self.stream.blocks):
            within = {id(p) for p in block.module.parameters()}
            self._shared[index] = {name: p for name, p in outside.items() if id(p) in within}
        while True:
            self._asked, self._seen, self._missed = set(), set(), set()
            state = State(params, model, keep=keep, count=len(shifts), replay=replay)
            done = False
            try:
                losses = self._evaluated(closure, shifts, outside, state)
                hidden = (self._asked - self._seen) | self._missed
                done = not hidden
            finally:
                state.finish(done=done)
            if done:
                return losses, state.replay
            # Unused, or read by code whose operations cannot be intercepted.
            self._opaque |= hidden

    def _evaluated(
        self,
        closure: Closure,
        shifts: Sequence[Shift],
        outside: Mapping[str, Tensor],
        state: State,
    ) -> list[Tensor]:
        there = Surroundings(self.stream.store.device)

        def work(side: Side) -> Tensor:
            self._local.side = side

            def call() -> Tensor:
                side.mode = innermost() if side.shift else None
                return _loss(closure)

            with there.entered():
                return self._shifted(outside, side.shift, call)

        sides = [Side(work, shift) for shift in shifts]
        hidden = [self._hidden(outside, shift) for shift in shifts]
        together = list(range(len(sides)))
        try:
            while together:
                for index in together:
                    with state.turn(index), _pointed(outside, hidden[index]):
                        sides[index].resume()
                        there.check()
                waiting = [i for i, side in enumerate(sides) if side.block is not None]
                together = [i for i in waiting if sides[i].block == sides[waiting[0]].block]
                if together:
                    self.stream.hold(sides[together[0]].block)  # type: ignore[arg-type]
        finally:
            for side in sides:
                side.cancel()
            self.stream.settle()
        return [side.loss for side in sides if side.loss is not None]

    def _shifted(
        self,
        params: Mapping[str, Tensor],
        shift: Shift,
        call: Callable[[], Any],
        *,
        thorough: bool = False,
    ) -> Any:
        """Make a call whose operations read shifted parameters.

        The mode of PyTorch that a thorough look needs may not be active while threads take turns.
        """
        visible = {name: p for name, p in params.items() if name not in self._opaque}
        with shifted(visible, shift, self._engine, thorough=thorough) as seen:
            found = call()
        if shift:  # otherwise nothing is replaced, and nobody looks
            self._asked |= set(visible)
            self._seen |= seen
            self._missed |= set(visible) - seen if thorough else set()
        return found

    def _hidden(self, params: Mapping[str, Tensor], shift: Shift) -> dict[str, Tensor]:
        """Shifted values of parameters that are read by code that cannot be intercepted."""
        if not shift or shift.direction is None:
            return {}
        return {
            name: shift.direction.shifted(name, p.detach(), shift.scale, self._engine)
            for name, p in params.items()
            if name in self._opaque
        }


class LockstepOracle(Oracle):
    """The oracle of one closure of a model whose blocks are offloaded. It answers with values.

    Args:
        closure: returns the loss of one fixed batch; or a list of closures, one per batch.
        params: see :class:`~anyorder.oracle.oracle.Oracle`.
        lockstep: evaluates the closure.
        model: the model.
        advance: let the first evaluation change buffers and random state, as a plain call would.
        policies: see :class:`~anyorder.oracle.oracle.Oracle`.
    """

    knows = "values alone, since blocks leave the memory after their use"
    instead = "Give the method a model that fits into memory"

    def __init__(
        self,
        closure: Closure | Sequence[Closure],
        params: Mapping[str, Tensor],
        lockstep: Lockstep,
        model: nn.Module,
        *,
        advance: bool = False,
        **policies: Unpack[Policies],
    ) -> None:
        policies["module"] = model
        super().__init__(params, **policies)
        batches = batches_of(closure)
        self._count = len(batches)
        self._closure: Closure = Mean(batches) if len(batches) > 1 else batches[0]
        self._lockstep, self._model, self._keep = lockstep, model, advance
        self._replay: Random | None = None

    def values(self, shifts: Sequence[Shift]) -> Tensor:
        """Return the losses at shifted points, shape ``(len(shifts),)``. Counts one value each.

        Every block is loaded once for all points and batches that reach it together.
        """
        with self._asking(values=len(shifts)):
            found, self._replay = self._lockstep.values(
                self._closure,
                shifts,
                self.params,
                self._model,
                keep=self._keep,
                replay=self._replay,
            )
            self._keep, self._evaluated = False, len(shifts) * self._count
            for loss in found:
                require_finite(self._nonfinite, loss)
        return torch.stack(found) * self._sign

    def grad(self) -> NoReturn:
        """Refuse: there is no graph."""
        raise self._cannot_give("gradients")


def _loss(closure: Closure) -> Tensor:
    try:
        return checked_loss(closure()).detach()
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
        raise ClosureError(
            "the closure differentiates, but an offloaded model is evaluated without a graph; "
            "expected a closure that returns the loss and does nothing else"
        ) from error


@contextlib.contextmanager
def _pointed(params: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Generator[None]:
    """Let parameters refer to other values."""
    before = {name: params[name].data for name in values}
    try:
        for name, value in values.items():
            params[name].data = value
        yield
    finally:
        for name, value in before.items():
            params[name].data = value
