"""The embedding layer for training with 8-bit state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class StableEmbedding(nn.Embedding):
    """An embedding with normalised outputs and 32-bit optimizer state.

    Gradients of token embeddings are sparse and vary widely in size, which is the main cause of
    instability with 8-bit state. Weights are initialised with Xavier uniform instead of normal, and
    layer normalisation is applied before positions are added. An optimizer of the module keeps the
    state of these weights in float32, whatever its option ``state``.

    Args:
        num_embeddings: size of the vocabulary.
        embedding_dim: width of the outputs.
        options: further arguments of ``torch.nn.Embedding``.

    Example:
        >>> import torch
        >>> from anyorder.model.embedding import StableEmbedding
        >>> layer = StableEmbedding(100, 16)
        >>> layer(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 16])

    References:
        Dettmers, Lewis, Shleifer and Zettlemoyer (2022), "8-bit Optimizers via Block-wise
        Quantization", arXiv 2110.02861, section 2.3.
    """

    #: Read by optimizers.
    full_precision_state = True

    def __init__(self, num_embeddings: int, embedding_dim: int, **options: Any) -> None:
        super().__init__(num_embeddings, embedding_dim, **options)
        self.norm = nn.LayerNorm(embedding_dim, device=self.weight.device, dtype=self.weight.dtype)

    def reset_parameters(self) -> None:
        """Initialise with Xavier uniform; the padding token, if there is one, with zeros."""
        nn.init.xavier_uniform_(self.weight)
        if self.padding_idx is not None:
            with torch.no_grad():
                self.weight[self.padding_idx].zero_()

    def forward(self, input: Tensor) -> Tensor:
        """Normalised embeddings, shape ``(*input.shape, embedding_dim)``."""
        return self.norm(super().forward(input))


def exempt(module: nn.Module | None) -> set[int]:
    """Ids of the weights whose state must stay in float32."""
    if module is None:
        return set()
    return {
        id(param)
        for part in module.modules()
        if getattr(part, "full_precision_state", False)
        for param in part.parameters(recurse=False)
    }
