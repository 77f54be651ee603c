"""Where blocks are between their uses: in host memory or in files.

A store keeps the parameters of each block and the number of updates they have received. ``get``
returns copies on the device, ``put`` replaces what is kept. On a GPU both use pinned memory and
streams of their own, and block the thread that calls them, not the stream that computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from anyorder.offload import tensorfile
from anyorder.offload.blocks import Block, empty
from anyorder.offload.moves import full

_UPDATES = "updates"


class Store(ABC):
    """Keeps blocks.

    Args:
        blocks: the blocks, whose parameters have the dtypes of the model.
        device: where ``get`` puts them.
        storage: dtype in which they are kept; ``None`` for that of the model.

    Attributes:
        versions: number of updates that the kept parameters of each block have received.
    """

    def __init__(
        self, blocks: Sequence[Block], device: torch.device, storage: torch.dtype | None
    ) -> None:
        self.blocks, self.device, self.storage = blocks, device, storage
        self.versions = [0] * len(blocks)
        self._pinned = device.type == "cuda"
        self._up = torch.cuda.Stream(device) if self._pinned else None
        self._down = torch.cuda.Stream(device) if self._pinned else None

    @abstractmethod
    def _read(self, index: int) -> dict[str, Tensor]:
        """Return the kept parameters of a block, on the CPU, in tensors that nobody else writes."""

    @abstractmethod
    def put(self, index: int, tensors: Mapping[str, Tensor], version: int) -> int:
        """Keep new values of the trainable parameters of a block; return the bytes written.

        The tensors must not be changed afterwards.
        """

    @abstractmethod
    def peek(self, index: int) -> dict[str, Tensor]:
        """Return the kept parameters of a block without copying them, on the CPU."""

    def get(self, index: int) -> dict[str, Tensor]:
        """Return copies of the parameters of a block on the device, in the dtype of the model."""
        kept, params = self._read(index), self.blocks[index].params
        if self._up is None:
            return {name: tensor.to(params[name].dtype) for name, tensor in kept.items()}
        with torch.cuda.stream(self._up):
            found = {
                name: tensor.to(self.device, non_blocking=True).to(params[name].dtype)
                for name, tensor in kept.items()
            }
        self._up.synchronize()
        return found

    def _download(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors on the CPU in the dtype of the store."""
        narrow = {name: self.storage or tensor.dtype for name, tensor in tensors.items()}
        if self._down is None:
            return {name: tensor.to("cpu", narrow[name]) for name, tensor in tensors.items()}
        with torch.cuda.stream(self._down):
            found = {
                name: torch.empty(tensor.shape, dtype=narrow[name], pin_memory=True).copy_(
                    tensor.to(narrow[name]), non_blocking=True
                )
                for name, tensor in tensors.items()
            }
        self._down.synchronize()
        return found


class HostStore(Store):
    """Keeps blocks in host memory, pinned if the device is a GPU."""

    def __init__(
        self, blocks: Sequence[Block], device: torch.device, storage: torch.dtype | None
    ) -> None:
        super().__init__(blocks, device, storage)
        self._kept: list[dict[str, Tensor]] = []
        for block in blocks:  # freed one after another, so that there are never two models
            kept = {n: p.detach().to("cpu", storage or p.dtype) for n, p in block.params.items()}
            self._kept.append({n: t.pin_memory() if self._pinned else t for n, t in kept.items()})
            empty(block.params, device)

    def _read(self, index: int) -> dict[str, Tensor]:
        found = self._kept[index]
        return found if self._pinned else {name: t.clone() for name, t in found.items()}

    def put(self, index: int, tensors: Mapping[str, Tensor], version: int) -> int:
        """Replace what is kept in one assignment."""
        found = self._download(tensors)
        self._kept[index], self.versions[index] = self._kept[index] | found, version
        return sum(tensor.nbytes for tensor in found.values())

    def peek(self, index: int) -> dict[str, Tensor]:
        """The kept tensors themselves."""
        return dict(self._kept[index])


class DiskStore(Store):
    """Keeps blocks in files: one for what is trained and one for what is frozen.

    A file is replaced in one rename and says how many updates it contains, so a process may be
    killed at any moment.

    Args:
        blocks: see :class:`Store`.
        device: see :class:`Store`.
        storage: see :class:`Store`.
        folder: contains the files.
        name: with which their names begin.
        resume: use the files of an earlier run; otherwise write them.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        device: torch.device,
        storage: torch.dtype | None,
        folder: Path,
        *,
        name: str = "block",
        resume: bool = False,
    ) -> None:
        super().__init__(blocks, device, storage)
        self.folder, self.name = folder, name
        for index, block in enumerate(blocks):
            for path, names in self._files(index):
                if resume:
                    header = tensorfile.checked(path, self._like(index, names))
                    if names == block.trainable:
                        self.versions[index] = int(header.texts[_UPDATES])
                else:
                    self._write(path, {name: block.params[name].detach() for name in names}, 0)

    def _files(self, index: int) -> list[tuple[Path, frozenset[str]]]:
        """The files of a block and the names of the parameters in each."""
        block = self.blocks[index]
        frozen = frozenset(block.params) - block.trainable
        files = (("", block.trainable), (".frozen", frozen))
        return [
            (self.folder / f"{self.name}-{index:04}{kind}.safetensors", names)
            for kind, names in files
            if names
        ]

    def _like(self, index: int, names: frozenset[str]) -> dict[str, Tensor]:
        """Empty tensors as they are kept."""
        params = self.blocks[index].params
        return {
            name: torch.empty(
                params[name].shape,
                dtype=self.storage or params[name].dtype,
                device="cpu",
                pin_memory=self._pinned,
            )
            for name in params
            if name in names
        }

    def _write(self, path: Path, tensors: Mapping[str, Tensor], version: int) -> int:
        kept = self._download(tensors)
        try:
            tensorfile.write(path, kept, {_UPDATES: str(version)})
        except OSError as error:
            raise full(path, error) from error
        return sum(tensor.nbytes for tensor in kept.values())

    def _read(self, index: int) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for path, names in self._files(index):
            if names.isdisjoint(self.blocks[index].trainable) and not self._pinned:
                found |= tensorfile.mapped(path)  # nothing changes it, so nothing is copied
                continue
            tensors = self._like(index, names)
            tensorfile.read_into(path, tensors)
            found |= tensors
        return found

    def put(self, index: int, tensors: Mapping[str, Tensor], version: int) -> int:
        """Replace the file of the trainable parameters."""
        written = self._write(self._files(index)[0][0], tensors, version)
        self.versions[index] = version
        return written

    def peek(self, index: int) -> dict[str, Tensor]:
        """The tensors of the files, mapped into memory."""
        found: dict[str, Tensor] = {}
        for path, _ in self._files(index):
            found |= tensorfile.mapped(path)
        return found
