"""Brings blocks into memory one at a time, applies the updates they have missed, and counts.

Between its uses a block is in a :class:`~anyorder.offload.stores.Store`, and its parameters have
their shapes but no memory: all their elements are one NaN. A block that is loaded first receives
the updates since it was last in memory, and is put back at once, since the evaluations do not
change it. Every use of a block therefore sees the current weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.offload.blocks import empty
from anyorder.offload.moves import Moves
from anyorder.offload.stores import Store


@dataclass(slots=True)
class Traffic:
    """Counts of transfers, and of the bytes of blocks in memory.

    Attributes:
        reads: blocks that were loaded.
        writes: blocks that were put back.
        bytes_written: bytes that were put back, in the dtype of the store.
        resident_bytes: bytes of the blocks that are loaded now, in the dtype of the model.
        peak_bytes: the highest value of ``resident_bytes``.
    """

    reads: int = 0
    writes: int = 0
    bytes_written: int = 0
    resident_bytes: int = field(default=0, init=False)
    peak_bytes: int = field(default=0, init=False)

    def hold(self, nbytes: int) -> None:
        """Count bytes that come into memory, or leave it if negative."""
        self.resident_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.resident_bytes)


class Stream:
    """The blocks of a model, of which one is in use at a time.

    Args:
        store: keeps the blocks.
        moves: the updates of the run.
        engine: runs the updates.
        ahead: read the next block, and write the present one, in threads while the present one is
            used. Two blocks are then in memory.
    """

    def __init__(self, store: Store, moves: Moves, engine: Engine, *, ahead: bool) -> None:
        self.store, self.moves, self._engine = store, moves, engine
        self.blocks = store.blocks
        self.traffic = Traffic()
        self._held: int | None = None
        self._next: dict[int, int] = {i: i + 1 for i in range(len(self.blocks) - 1)}
        self._reader = ThreadPoolExecutor(1, "offload-read") if ahead else None
        self._writer = ThreadPoolExecutor(1, "offload-write") if ahead else None
        self._coming: tuple[int, Future[dict[str, Tensor]]] | None = None
        self._going: dict[int, Future[None]] = {}
        for block in self.blocks:
            empty(block.params, store.device)

    # Holding a block -----------------------------------------------------------------------

    def hold(self, index: int) -> None:
        """Load a block, with all its updates; let go of the one before."""
        if self._held == index:
            return
        if self._held is not None:
            self._next[self._held] = index
        self.release()
        with torch.inference_mode(False), torch.no_grad():
            tensors = self._taken(index)
            self._held = index
            self.traffic.reads += 1
            for name, param in self.blocks[index].params.items():
                param.data = tensors[name]
            try:
                self._update(index, tensors)
            except BaseException:
                self.release()  # the store has the earlier version, and so the next use has
                raise
        following = self._next.get(index)
        if self._reader is not None and following is not None and following != index:
            self._start(following)

    def release(self) -> None:
        """Let go of the block in use."""
        if self._held is None:
            return
        index, self._held = self._held, None
        self._wait_for_device()
        try:
            self._finish(index)
        finally:
            empty(self.blocks[index].params, self.store.device)
            self.traffic.hold(-self.blocks[index].nbytes)

    def settle(self) -> None:
        """Let go of everything, and wait for all writes.

        Raises:
            OffloadError: a block could not be written; it keeps its earlier version.
        """
        try:
            self.release()
        finally:
            if self._coming is not None:
                index, future = self._coming
                self._coming = None
                with contextlib.suppress(Exception):  # nobody needs it
                    future.result()
                self.traffic.hold(-self.blocks[index].nbytes)
        for index in list(self._going):
            self._finish(index)

    @contextlib.contextmanager
    def used(self, index: int) -> Generator[None]:
        """Context for one use of a block outside of a step."""
        self.hold(index)
        try:
            yield
        except BaseException:
            self.settle()
            raise
        self.release()
        if index not in self._next:
            self.settle()

    def flush(self) -> None:
        """Apply all updates to all blocks.

        Raises:
            OffloadError: a block could not be written. Nothing is lost; call it again.
        """
        try:
            for index in range(len(self.blocks)):
                if self._is_behind(index):
                    self.hold(index)
        finally:
            self.settle()

    def flush_block(self, index: int) -> None:
        """Apply all updates to one block."""
        if self._is_behind(index):
            self.hold(index)
            self.settle()

    def forget(self) -> None:
        """Drop the moves that all blocks have received from memory."""
        pairs = zip(self.blocks, self.store.versions, strict=True)
        versions = [version for block, version in pairs if block.trainable]
        self.moves.forget(min(versions, default=len(self.moves)))

    def _is_behind(self, index: int) -> bool:
        return bool(self.blocks[index].trainable) and self.store.versions[index] < len(self.moves)

    def close(self) -> None:
        """Give the parameters of all blocks back to the model, from the store."""
        self.flush()
        for pool in (self._reader, self._writer):
            if pool is not None:
                pool.shutdown()
        for index, block in enumerate(self.blocks):
            kept = self.store.peek(index)
            for name, param in block.params.items():
                param.data = kept[name].to(self.store.device, param.dtype)

    # Inside --------------------------------------------------------------------------------

    def _start(self, index: int) -> None:
        """Begin to read a block."""
        assert self._reader is not None
        writing = self._going.get(index)

        def read() -> dict[str, Tensor]:
            if writing is not None:
                writing.exception()  # waits; the error itself is raised by its owner
            return self.store.get(index)

        self.traffic.hold(self.blocks[index].nbytes)
        self._coming = index, self._reader.submit(read)

    def _taken(self, index: int) -> dict[str, Tensor]:
        """The parameters of a block from the store, read ahead or now."""
        if self._coming is not None:
            coming, future = self._coming
            self._coming = None
            if coming == index:
                try:
                    return future.result()
                except BaseException:
                    self.traffic.hold(-self.blocks[index].nbytes)
                    raise
            future.exception()
            self.traffic.hold(-self.blocks[coming].nbytes)
        self._finish(index)
        self.traffic.hold(self.blocks[index].nbytes)
        try:
            return self.store.get(index)
        except BaseException:
            self.traffic.hold(-self.blocks[index].nbytes)
            raise

    def _update(self, index: int, tensors: dict[str, Tensor]) -> None:
        """Apply the updates that a block has missed, and put it back."""
        trained = {name: tensors[name] for name in sorted(self.blocks[index].trainable)}
        missed = self.moves.since(self.store.versions[index]) if trained else []
        if not missed:
            return
        for move in missed:
            move.apply_(trained, self._engine)
        if self.store.storage is not None:  # what is used is what is kept
            for tensor in trained.values():
                tensor.copy_(tensor.to(self.store.storage))
        self._wait_for_device()
        version = len(self.moves)
        if self._writer is None:
            self._write(index, trained, version)
        else:
            self._going[index] = self._writer.submit(self._write, index, trained, version)

    def _write(self, index: int, tensors: dict[str, Tensor], version: int) -> None:
        self.traffic.bytes_written += self.store.put(index, tensors, version)
        self.traffic.writes += 1

    def _finish(self, index: int) -> None:
        """Wait until a block is written."""
        if future := self._going.pop(index, None):
            future.result()

    def _wait_for_device(self) -> None:
        """Wait for the computation on a block, before its memory is copied or freed."""
        if self.store.device.type == "cuda":
            torch.cuda.current_stream(self.store.device).synchronize()
