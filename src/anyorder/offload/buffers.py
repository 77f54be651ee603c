"""Keeps the buffers of a model beside a run in files, since no log of updates contains them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from anyorder.offload import tensorfile
from anyorder.offload.moves import full
from anyorder.offload.tensorfile import OffloadError

_UPDATES = "updates"


class Buffers:
    """The buffers of a model, in two files that are written in turn.

    Buffers are written before the update of their step is logged. If the process is killed in
    between, the other file contains those of the step before.

    Args:
        model: the model.
        folder: contains the files; ``None``: nothing is written.
    """

    def __init__(self, model: nn.Module, folder: Path | None) -> None:
        self._model, self._known, self._slot = model, dict[str, Tensor](), 1
        self._paths = [] if folder is None else [folder / f"buffers-{n}.safetensors" for n in "01"]

    def save(self, updates: int) -> None:
        """Write the buffers as they are after so many updates, if they have changed.

        Raises:
            OffloadError: they cannot be written.
        """
        if not self._paths:
            return
        found = {name: b.detach().cpu() for name, b in self._model.named_buffers()}
        same = found.keys() == self._known.keys()
        if same and all(torch.equal(found[name], self._known[name]) for name in found):
            return
        if strange := [n for n, b in found.items() if b.dtype not in tensorfile.DTYPES.values()]:
            raise OffloadError(
                f"{strange[0]} is a buffer of {found[strange[0]].dtype}, which files cannot hold; "
                "leave folder out"
            )
        path = self._paths[1 - self._slot]
        try:
            tensorfile.write(path, found, {_UPDATES: str(updates)})
        except OSError as error:
            raise full(path, error) from error
        self._slot = 1 - self._slot
        self._known = {name: b.clone() for name, b in found.items()}

    def load(self, updates: int) -> None:
        """Load the buffers as they were after so many updates."""
        versions = {
            slot: int(tensorfile.read_header(path).texts[_UPDATES])
            for slot, path in enumerate(self._paths)
            if path.exists()
        }
        past = [slot for slot, version in versions.items() if version <= updates]
        if not past:
            return
        self._slot = max(past, key=versions.__getitem__)
        found = {name: torch.empty_like(b, device="cpu") for name, b in self._model.named_buffers()}
        tensorfile.read_into(self._paths[self._slot], found)
        self._known = found
        for name, buffer in self._model.named_buffers():
            buffer.copy_(found[name])
