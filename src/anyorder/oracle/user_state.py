"""Saves and restores the user's state around an evaluation."""

from __future__ import annotations

import contextlib
import ctypes
import random
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Random:
    """The global random states that a closure may use."""

    python: Any
    numpy: Any
    cpu: Tensor
    cuda: list[Tensor]


class NumpyRandom:
    """NumPy's global generator, which takes 60 us to read or to write.

    As long as its memory is unchanged, its state is the one read last. The second half of a pair of
    normal numbers is state outside this memory; once one was seen, every state is read.
    """

    def __init__(self) -> None:
        self._memory: bytes | None = None
        self._state: Any = None
        self._halves = False

    def state(self) -> Any:
        """The state; the same object if nothing was drawn since."""
        generator: Any = np.random.get_bit_generator()  # pyright: ignore[reportAttributeAccessIssue]
        memory = None
        if type(generator) is np.random.MT19937 and not self._halves:
            memory = ctypes.string_at(generator.ctypes.state_address, 4 * (624 + 1))
        if memory is None or memory != self._memory:
            self._state = np.random.get_state(legacy=False)  # noqa: NPY002 - closures may use it
            self._halves = self._halves or bool(self._state["has_gauss"])
            self._memory = memory
        return self._state

    def put_back(self, state: Any) -> None:
        """Restore a state."""
        if self.state() is not state:
            np.random.set_state(state)  # noqa: NPY002


_NUMPY = NumpyRandom()


class PutAside:
    """The user's ``.grad`` fields during an evaluation."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.found = [p.grad for p in params]
        self.versions = [None if g is None else g._version for g in self.found]
        self.kept = False

    def keep(self) -> None:
        """Keep the new gradients in place."""
        self.kept = True


class UserState:
    """Saves and restores the user's state around an evaluation.

    Args:
        params: parameters by name.
        module: the module whose buffers and modes are restored, if known.
        waiting: names of closures whose next evaluation is not undone: it changes buffers and
            random state as a plain call would.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        module: nn.Module | None,
        waiting: Iterable[str] = (),
    ) -> None:
        self.params = list(params.values())
        self.waiting = set(waiting)
        self.module = module
        self.devices = sorted({p.device.index or 0 for p in self.params if p.is_cuda})
        self._replay: Random | None = None

    @contextlib.contextmanager
    def grads_put_aside(self) -> Generator[PutAside]:
        """Restore ``.grad`` of every parameter at the end, unless the new ones are kept."""
        before = PutAside(self.params)
        try:
            yield before
        finally:
            if not before.kept:
                for param, grad in zip(self.params, before.found, strict=True):
                    param.grad = grad

    def grads_changed(self, before: PutAside) -> bool:
        """Whether the closure has accumulated gradients; if not, clear ``.grad``."""
        changed = any(
            p.grad is not None and (p.grad is not g or p.grad._version != v)
            for p, g, v in zip(self.params, before.found, before.versions, strict=True)
        )
        if not changed:
            for param in self.params:
                param.grad = None
        return changed

    @contextlib.contextmanager
    def evaluation(self, closure: str = "") -> Generator[None]:
        """Context for one evaluation, with the random numbers of the first one.

        Afterwards buffers, module modes and random state are restored, unless ``waiting`` contains
        this closure and the evaluation succeeded.
        """
        keep = closure in self.waiting
        found, modes = self._random(), self._modes()
        if self._replay is None:
            self._replay = found
        else:
            self._set_random(self._replay)
        done = False
        try:
            with self._guarded() if keep else self._lent():
                yield
            done = True
        finally:
            if not (keep and done):
                self._put_back(found, modes)
        self.waiting.discard(closure)

    @contextlib.contextmanager
    def unmoved(self) -> Generator[None]:
        """Restore buffers, module modes and random state at the end, even after an exception.

        For backward passes, which only change them if activations are recomputed.
        """
        found, modes = self._random(), self._modes()
        copies = [(b, b.detach().clone()) for b in self._buffers()]
        try:
            yield
        finally:
            self._put_back(found, modes)
            _copy_back(copies)

    @contextlib.contextmanager
    def _guarded(self) -> Generator[None]:
        """Let buffers change, but restore them if the block raises."""
        copies = [(b, b.detach().clone()) for b in self._buffers()]
        try:
            yield
        except BaseException:
            _copy_back(copies)
            raise

    @contextlib.contextmanager
    def _lent(self) -> Generator[None]:
        """Replace the module's buffers by copies inside the context.

        Writing old values back would invalidate the graph of the evaluation, which holds the
        buffers it used. With copies, the graph holds the copies and the originals do not change.
        """
        copies = {id(b): b.detach().clone() for b in self._buffers()}
        lent: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
        for part in [] if self.module is None else self.module.modules():
            if isinstance(part, torch.jit.ScriptModule):
                continue
            held: dict[str, Tensor | None] = part._buffers  # pyright: ignore[reportPrivateUsage]
            lent += [(held, name, b) for name, b in held.items() if b is not None]
        try:
            for holder, name, buffer in lent:
                holder[name] = copies[id(buffer)]
            yield
        finally:
            for holder, name, buffer in lent:
                holder[name] = buffer

    def _put_back(self, found: Random, modes: list[tuple[nn.Module, bool]]) -> None:
        self._set_random(found)
        for part, training in modes:
            part.training = training

    def _buffers(self) -> list[Tensor]:
        return [] if self.module is None else list(self.module.buffers())

    def _modes(self) -> list[tuple[nn.Module, bool]]:
        if self.module is None:
            return []
        return [(part, part.training) for part in self.module.modules()]

    def _random(self) -> Random:
        return Random(
            random.getstate(),
            _NUMPY.state(),
            torch.get_rng_state(),
            [torch.cuda.get_rng_state(d) for d in self.devices],
        )

    def _set_random(self, state: Random) -> None:
        random.setstate(state.python)
        _NUMPY.put_back(state.numpy)
        torch.set_rng_state(state.cpu)
        for device, cuda in zip(self.devices, state.cuda, strict=True):
            torch.cuda.set_rng_state(cuda, device)


@torch.no_grad()
def _copy_back(copies: list[tuple[Tensor, Tensor]]) -> None:
    """Restore values that differ (batch-norm kernels do not change ``_version``)."""
    for buffer, value in copies:
        if not torch.equal(buffer, value):
            buffer.copy_(value)
