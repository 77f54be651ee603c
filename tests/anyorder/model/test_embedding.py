"""The stable embedding: start, normalisation, and state that stays in float32."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from anyorder import AdamW
from anyorder.model.embedding import StableEmbedding, exempt


def test_starts_uniform_after_xavier() -> None:
    layer = StableEmbedding(300, 50, padding_idx=3)
    bound = math.sqrt(6 / 350)
    weight = layer.weight.detach()
    assert weight.abs().max() <= bound
    assert weight.std().item() > 0.9 * bound / math.sqrt(3)
    assert bool((weight[3] == 0).all())


def test_outputs_are_normalised() -> None:
    layer = StableEmbedding(40, 16)
    out = layer(torch.tensor([[1, 2], [3, 39]]))
    assert out.shape == (2, 2, 16)
    torch.testing.assert_close(out.mean(-1), torch.zeros(2, 2), atol=1e-6, rtol=0)
    expected = nn.functional.layer_norm(layer.weight[torch.tensor([1, 2])], (16,))
    torch.testing.assert_close(out[0], expected)


def test_is_made_where_it_is_asked_for() -> None:
    layer = StableEmbedding(10, 4, dtype=torch.float64)
    assert layer.norm.weight.dtype == layer(torch.tensor([1])).dtype == torch.float64


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = StableEmbedding(200, 64)
        self.plain = nn.Embedding(200, 64)
        self.head = nn.Linear(64, 100)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tokens(x) + self.plain(x)).square().mean()


def kinds(optimizer: AdamW) -> dict[str, torch.dtype]:
    named = optimizer.named_params()
    return {name: optimizer.state[p]["exp_avg"].dtype for name, p in named.items()}


def test_its_state_stays_in_float32_and_that_is_said() -> None:
    model = Model()
    optimizer = AdamW(model, state="8bit")
    optimizer.step(lambda: model(torch.arange(200)))
    found = kinds(optimizer)
    assert found["tokens.weight"] == torch.float32
    assert found["plain.weight"] == found["head.weight"] == torch.uint8
    assert "tokens.weight  200x64 float32  state in float32" in optimizer.explain()
    assert "head.weight  100x64 float32\n" in optimizer.explain()


def test_a_copy_exempts_its_own_weights() -> None:
    model, optimizer = copy.deepcopy((m := Model(), AdamW(m, state="8bit")))
    optimizer.step(lambda: model(torch.arange(200)))
    assert kinds(optimizer)["tokens.weight"] == torch.float32
    assert exempt(model) == {id(model.tokens.weight)}
    assert exempt(None) == set()
