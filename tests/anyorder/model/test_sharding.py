"""Functions for sharded parameters change nothing on ordinary tensors.

What they do on sharded ones is shown with two processes in tests/test_processes.py.
"""

from __future__ import annotations

import torch

from anyorder.model.sharding import as_sharded, full, is_sharded, local, shard_of, summed


def test_ordinary_tensors_pass_through() -> None:
    x, like = torch.ones(3), torch.zeros(3)
    assert not is_sharded(x)
    assert local(x) is full(x) is shard_of(x, like) is as_sharded(x, like) is x
    assert summed(torch.tensor(2.0), [x, like]).item() == 2.0
