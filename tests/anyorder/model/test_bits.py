"""The hash of weights changes with every bit, name and shape, and with nothing else."""

from __future__ import annotations

import torch

from anyorder.model.bits import hash_of


def test_every_bit_of_every_weight_is_hashed() -> None:
    torch.manual_seed(0)
    weights = {"a": torch.randn(3, 700), "b": torch.randn(()), "c": torch.randn(4).bfloat16()}
    first = hash_of(weights)
    assert hash_of({name: w.clone() for name, w in weights.items()}) == first
    found = {first}
    for name, place in (("a", 0), ("a", 1234), ("a", 2099), ("b", 0), ("c", 3)):
        flat = weights[name].reshape(-1)
        kept = flat[place].clone()
        other = torch.nextafter(kept.float(), torch.tensor(9.0)) if name != "c" else -kept
        flat[place] = other
        found.add(hash_of(weights))
        flat[place] = kept
    found.add(hash_of({"z" if name == "a" else name: w for name, w in weights.items()}))
    found.add(hash_of({**weights, "a": weights["a"].reshape(700, 3)}))
    assert len(found) == 8
    assert hash_of({**weights, "a": weights["a"].t().contiguous().t()}) == first
