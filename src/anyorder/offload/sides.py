"""The threads of evaluations that take turns, and what each of them sees of the user's state."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
    _pop_mode_temporarily,  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
)
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import (
    _get_current_dispatch_mode_stack,  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
)

from anyorder.offload.tensorfile import OffloadError
from anyorder.oracle.closures import ClosureError
from anyorder.oracle.user_state import Random, UserState
from anyorder.points.directions import Shift

_Slot = tuple[dict[str, Tensor | None], str]


class _Cancelled(BaseException):
    """Ends a thread whose evaluation is no longer wanted."""


class Side:
    """One evaluation in its own thread."""

    def __init__(self, work: Callable[[Side], Tensor], shift: Shift) -> None:
        self.shift = shift
        self.block: int | None = None  # where it waits
        self.mode: TorchFunctionMode | None = None  # substitutes parameters outside of blocks
        self.loss: Tensor | None = None
        self.error: BaseException | None = None
        self._cancelled = False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run, work), name="offload-side", daemon=True
        )

    def resume(self) -> None:
        """Let it run until the next block or the end; raise what it raises."""
        self.block = None
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self._stopped.acquire()
        if self.error is not None:
            raise self.error

    def wait_at(self, block: int) -> None:
        """In its thread: stop until this block is loaded."""
        if self._cancelled:  # called while it unwinds
            raise _Cancelled
        self.block = block
        self._stopped.release()
        self._go.acquire()
        if self._cancelled:
            raise _Cancelled

    def cancel(self) -> None:
        """End the thread, if it has not ended."""
        self._cancelled = True
        if self._thread.ident is not None:
            self._go.release()
            self._thread.join()

    def _run(self, work: Callable[[Side], Tensor]) -> None:
        try:
            self.loss = work(self)
        except BaseException as error:
            self.error = error
        self._stopped.release()


class State(UserState):
    """The user's state during evaluations that take turns.

    Args:
        params: the parameters, for their devices.
        module: the model.
        keep: let the first evaluation change buffers and random state, as a plain call would.
        count: number of evaluations.
        replay: the random state in which they begin; by default the present one.

    Attributes:
        replay: the random state in which they began.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        module: nn.Module,
        *,
        keep: bool,
        count: int,
        replay: Random | None = None,
    ) -> None:
        super().__init__(params, module)
        self._keep, self._began, self._modes_before = keep, self._random(), self._modes()
        self.replay = replay or self._began
        self._numbers = [self.replay] * count
        self._slots: list[_Slot] = [
            (held, name)
            for part in module.modules()
            for held in (part._buffers,)  # pyright: ignore[reportPrivateUsage]
            for name, buffer in held.items()
            if buffer is not None
        ]
        self._before = self._values()
        self._copies = [b.detach().clone() for b in self._before]
        self._own = [
            self._before if keep and not i else self._cloned(self._copies) for i in range(count)
        ]

    @contextlib.contextmanager
    def turn(self, index: int) -> Generator[None]:
        """Context in which evaluation ``index`` goes on."""
        outside = self._values()
        self._put(self._own[index])
        self._set_random(self._numbers[index])
        try:
            yield
        finally:
            self._own[index], self._numbers[index] = self._values(), self._random()
            self._put(outside)

    def finish(self, *, done: bool) -> None:
        """Restore what the evaluations changed, except what the first one may change."""
        if self._keep and done:
            self._put(self._own[0])
            self._set_random(self._numbers[0])
            return
        self._put(self._before)
        self._put_back(self._began, self._modes_before)
        for buffer, value in zip(self._before, self._copies, strict=True):
            if not torch.equal(buffer, value):
                buffer.copy_(value)

    def _values(self) -> list[Tensor]:
        return [holder[name] for holder, name in self._slots]  # type: ignore[misc]

    def _put(self, values: Sequence[Tensor]) -> None:
        for (holder, name), value in zip(self._slots, values, strict=True):
            holder[name] = value

    def _cloned(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Copies; a buffer that has several names stays one tensor."""
        copies = {id(b): v.clone() for b, v in zip(self._before, values, strict=True)}
        return [copies[id(b)] for b in self._before]


class Surroundings:
    """What belongs to the calling thread and its evaluations need: device, stream, autocast."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._default = device, torch.get_default_device()
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._casts = {
            kind: torch.get_autocast_dtype(kind)
            for kind in {"cpu", device.type}
            if torch.is_autocast_enabled(kind)
        }
        self._globals = _globals()

    @contextlib.contextmanager
    def entered(self) -> Generator[None]:
        """The same surroundings in another thread, without gradients."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self._default.type != "cpu":
                stack.enter_context(self._default)
            if self._stream is not None:
                stack.enter_context(torch.cuda.device(self._device))
                stack.enter_context(torch.cuda.stream(self._stream))
            for kind, dtype in self._casts.items():
                stack.enter_context(torch.autocast(kind, dtype=dtype))
            yield

    def check(self) -> None:
        """Refuse closures that change settings of the whole process around a block."""
        if _globals() != self._globals:
            raise ClosureError(
                "the closure changes a global setting of PyTorch (default dtype, attention kernel, "
                "precision of products) around the model; change it outside of step()"
            )


def _globals() -> tuple[Any, ...]:
    cuda: Any = torch.backends.cuda
    return (
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
    )


def refuse_modes() -> None:
    """Refuse modes of the calling thread, which other threads do not have."""
    modes = [m for m in _get_current_function_mode_stack() if not isinstance(m, DeviceContext)]
    if modes or _get_current_dispatch_mode_stack():
        raise OffloadError(
            "step() of an offloaded model evaluates in threads of its own, where a "
            "TorchFunctionMode or TorchDispatchMode of the calling thread does not work; enter it "
            "inside the closure"
        )


def innermost() -> TorchFunctionMode | None:
    """The innermost mode of this thread."""
    modes: list[TorchFunctionMode] = _get_current_function_mode_stack()
    return modes[-1] if modes else None


def without(mode: TorchFunctionMode | None) -> contextlib.AbstractContextManager[Any]:
    """Context in which a mode is not active, if it is the innermost one."""
    inside = mode is not None and innermost() is mode
    return _pop_mode_temporarily() if inside else contextlib.nullcontext()
