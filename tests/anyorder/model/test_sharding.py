"""Functions for sharded parameters change nothing on ordinary tensors.

What they do on sharded ones is shown with two processes in tests/test_processes.py.
"""

from __future__ import annotations

import torch
from torch import nn

from anyorder.model.sharding import (
    as_sharded,
    full,
    is_sharded,
    local,
    reshard,
    shard_of,
    summed,
)


def test_ordinary_tensors_pass_through() -> None:
    x, like = torch.ones(3), torch.zeros(3)
    assert not is_sharded(x)
    assert local(x) is full(x) is shard_of(x, like) is as_sharded(x, like) is x
    assert summed(torch.tensor(2.0), [x, like]).item() == 2.0


def test_only_modules_of_fsdp_are_resharded() -> None:
    class Part(nn.Linear):
        back = 0

        def unshard(self) -> None: ...

        def reshard(self) -> None:
            self.back += 1

    model = nn.Sequential(nn.Linear(1, 1), Part(1, 1), Part(1, 1))
    reshard(model)
    assert [part.back for part in model if isinstance(part, Part)] == [1, 1]
